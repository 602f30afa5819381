"""What moves through a worker: an `Execution` is one delivery on its way, an `Outcome` what came of it, as data.

`policy.py` turns an outcome into how the delivery is settled, `settle.py` carries that out.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from streamflow.broker.envelope import EMPTY, Envelope
from streamflow.broker.errors import Status
from streamflow.broker.pull import Delivery

from .endpoints import EndpointSpec

if TYPE_CHECKING:
    from .stream import Stream
ANY = "*"  # one executor follows: it reads columns as well as a body that passes through untouched


@dataclass(slots=True)
class Execution:
    """One delivery being worked on. `spec` None = the executor has no such endpoint: pass the body through."""

    delivery: Delivery
    envelope: Envelope
    spec: EndpointSpec | None
    accept: str  # content type its output must have: COLUMNS, the client's on the last hop, or ANY
    started: float = field(default_factory=time.time)  # Unix seconds; set anew when the endpoint really starts
    ended: float = 0.0  # Unix seconds at which the endpoint had ended, before anybody waited for the loop
    cancelled: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)  # set when the delivery is settled
    task: asyncio.Task[None] | None = None
    branches: dict[str, Any] | None = None  # DocList by branch, where branches met unmerged
    alone: bool = False  # workers died while it ran, it may be why
    stream: Stream | None = None  # the client wants what the generator yields as it comes

    @property
    def attempt(self) -> int:
        """Of this request at this executor, from 1: those that ended in an exception to retry, and the deliveries since."""
        return self.envelope.retried + self.delivery.attempt

    @property
    def subject(self) -> str:
        """Where it came from, for logs."""
        return self.delivery.subject.decode()

    @property
    def fencing_token(self) -> int:
        """Grows with every delivery of this request, also over its retries, which have a queue of their own."""
        return (self.envelope.retried << 40) + self.delivery.fencing_token

    def interrupt(self, task: asyncio.Task[None]) -> None:
        """Cancel its task once that has begun: before its first step it would run nothing at all, not even what settles the request."""
        asyncio.get_running_loop().call_soon(task.cancel)


class Output(NamedTuple):
    """The executor ran: a body in the execution's `accept` form, and what it changed in the envelope."""

    body: bytes | memoryview = b""
    content_type: str = EMPTY
    parameters: dict[str, Any] | None = None
    results: dict[str, Any] | None = None
    documents: int = -1  # in the body; -1 = not counted


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer that is an error. `exit_worker`: the executor asked to end its process on this exception (EX-16). `may_retry`: it named
    this exception in `retry_on`."""

    status: Status
    exit_worker: bool = False
    may_retry: bool = False


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Quarantine: kept as a dead letter with its reason, and the client told."""

    status: Status


@dataclass(frozen=True, slots=True)
class Dropped:
    """Nobody wants it any more and nobody is told: a cancelled request."""


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The delivery is another worker's by now: it settles it."""


@dataclass(frozen=True, slots=True)
class Paused:
    """No outcome yet: a generator that waits for its reader."""


Outcome = Output | Failure | GivenUp | Dropped | Abandoned | Paused
