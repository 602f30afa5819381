"""The publish-acks of a request's first hops: alone, or where they are several or bring a large body each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias

from streamflow.broker import blobs
from streamflow.broker.acks import Stored
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import EMPTY, Claim, Envelope
from streamflow.broker.errors import Status, StreamflowError, Unavailable
from streamflow.broker.flow import Graph
from streamflow.broker.routing import Step
from streamflow.broker.unmet import blanks

log = logging.getLogger(__name__)


Refuse: TypeAlias = Callable[[Envelope, StreamflowError], None]


def failed(envelope: Envelope, error: StreamflowError) -> Envelope:
    """The answer to a request, or in place of its answer, that `error` ended."""
    return envelope._replace(status=Status.of(error), body=b"", content_type=EMPTY, claim=None, final=True)


class Refusal:
    """Called with the publish-ack of a message for a request; answers it when the broker did not take that."""

    __slots__ = ("_envelope", "_refuse")

    def __init__(self, refuse: Refuse, envelope: Envelope) -> None:
        self._refuse = refuse
        self._envelope = envelope

    def __call__(self, _sequence: int, error: StreamflowError | None) -> None:
        if error is not None:
            self._refuse(self._envelope, error)


class FirstHops:
    """Those of one request. `refuse(envelope, error)` is called for each hop that does not take it.

    Where others do, what they make of it would wait for the parts of these: it is told not to. `spawn` owns the removal of bodies.
    """

    def __init__(
        self,
        bus: Bus,
        graph: Graph,
        envelope: Envelope,
        total: int,
        refuse: Refuse,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._bus = bus
        self._graph = graph
        self._envelope = envelope
        self._open = self._total = total
        self._refused: list[Step] = []
        self._refuse = refuse
        self._spawn = spawn

    def ack_of(self, step: Step, claim: Claim | None = None) -> Stored:
        """To be called with the publish-ack of `step`, which brings the body of `claim`."""

        def heard(_sequence: int, error: StreamflowError | None) -> None:
            self._open -= 1
            if error is not None:
                self._refused.append(step)
                self._refuse(self._envelope, error)
                if claim is not None and not isinstance(error, Unavailable):  # then it may be stored all the same
                    self._spawn(discard(self._bus, self._envelope.flow, claim))
            if not self._open and 0 < len(self._refused) < self._total:
                tell_of_refusal(self._bus, self._graph, self._envelope, self._refused)

        return heard


async def discard(bus: Bus, flow: str, claim: Claim) -> None:
    """Remove a body that nobody was told of."""
    await blobs.discard(bus, flow, claim)
    await blobs.discard_shared(bus, flow, claim)


def tell_of_refusal(bus: Bus, graph: Graph, envelope: Envelope, refused: Sequence[Step]) -> None:
    """Have workers put blanks where parts would wait for those of `refused`; where that fails they expire."""
    try:
        for subject, message_id, payload in blanks(graph, envelope, tuple(refused)):
            bus.store(subject, payload, message_id, _told)
    except StreamflowError as error:
        _told(0, error)


def _told(_sequence: int, error: StreamflowError | None) -> None:
    if error is not None:
        log.debug("parts of a request that was refused are left to expire: %s", error)
