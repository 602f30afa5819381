"""What follows from an outcome, as data: the one place that decides how a delivery is settled.

An exception of user code is an answer, so the delivery is acked, unless the executor names it in `retry_on`: then the request comes again
later. A death of the worker brings a request back by itself, and too many of those quarantine it. What is quarantined, and what failed
in a job, is kept as a dead letter.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from streamflow.broker.errors import Code, Status

from .executions import Abandoned, Dropped, Execution, Failure, GivenUp, Outcome, Output, Paused
from .retries import Retries


class Settle(Enum):
    ACK = "ack"
    TERM = "term"
    LEAVE = "leave"  # to the worker that has it now


@dataclass(frozen=True, slots=True)
class Verdict:
    """`forward`: publish the output to the next hops (or the client) first. `answer`: tell the client this status first. `dead`: keep a
    dead letter first. `retry_s`: have the broker deliver the request again in so many seconds first."""

    settle: Settle
    forward: bool = False
    answer: Status | None = None
    dead: Status | None = None
    retry_s: float | None = None


_PASS_ON = Verdict(Settle.ACK, forward=True)


def judge(outcome: Outcome, execution: Execution, retries: Retries) -> Verdict:
    match outcome:
        case Output():
            return _PASS_ON
        case Failure(status=status, may_retry=True):
            retry_s = retries.next_s(execution.envelope, execution.attempt)
            return (
                Verdict(Settle.ACK, retry_s=retry_s) if retry_s is not None else _failed(execution, retries.told(status, execution.attempt))
            )
        case Failure(status=status):
            return _failed(execution, status)
        case GivenUp(status=status):
            return Verdict(Settle.TERM, answer=status, dead=status)
        case Dropped():
            return Verdict(Settle.ACK)
        case Abandoned():
            return Verdict(Settle.LEAVE)
        case Paused():
            raise AssertionError("a paused execution has no outcome to judge")


def _failed(execution: Execution, status: Status) -> Verdict:
    """What an executor could not do for a job is kept for when it can: nobody waits who would send it again."""
    is_kept = status.code is Code.EXECUTOR_ERROR and bool(execution.envelope.job)
    return Verdict(Settle.ACK, answer=status, dead=status if is_kept else None)


def late(endpoint: str, executor: str, late_s: float) -> Failure:
    """A request whose deadline passed before it started here."""
    text = f"{endpoint}: the deadline passed {late_s:.3f} s before executor {executor!r} could start it"
    return Failure(Status(Code.DEADLINE_EXCEEDED, text, "DeadlineExceeded", executor=executor))


def too_deadly(starts: int, executor: str) -> GivenUp:
    """A request during which workers died `starts` times."""
    text = f"given up: {starts} workers of executor {executor!r} died while they ran this request; it is kept as a dead letter"
    return GivenUp(Status(Code.QUARANTINED, text, "Quarantined", executor=executor))


def undecodable(error: Exception, executor: str) -> GivenUp:
    """Bytes that are no envelope: nobody can be answered, the bytes are kept."""
    return GivenUp(Status(Code.INVALID_ARGUMENT, str(error), type(error).__name__, executor=executor))
