"""What follows from an outcome, as data: the one place that decides how a delivery is settled.

An exception of user code is an answer, so the delivery is acked. Only a death of the worker brings a request back, and too many of those
quarantine it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from streamflow.broker.errors import Code, Status

from .jobs import Abandoned, Dropped, Failure, GivenUp, Outcome, Output, Paused


class Settle(Enum):
    ACK = "ack"
    TERM = "term"
    LEAVE = "leave"  # to the worker that has it now


@dataclass(frozen=True, slots=True)
class Verdict:
    """`forward`: publish the output to the next hops (or the client) first. `answer`: tell the client this status first. `dead`: keep a
    dead letter first."""

    settle: Settle
    forward: bool = False
    answer: Status | None = None
    dead: Status | None = None


def judge(outcome: Outcome) -> Verdict:
    match outcome:
        case Output():
            return Verdict(Settle.ACK, forward=True)
        case Failure(status=status):
            return Verdict(Settle.ACK, answer=status)
        case GivenUp(status=status):
            return Verdict(Settle.TERM, answer=status, dead=status)
        case Dropped():
            return Verdict(Settle.ACK)
        case Abandoned():
            return Verdict(Settle.LEAVE)
        case Paused():
            raise AssertionError("a paused job has no outcome to judge")


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
