"""The way on from a worker: outputs to the client, to the next hops, and to the places where parts of a request meet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from operator import attrgetter
from typing import Any

from streamflow.broker import blobs
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import Claim, Envelope
from streamflow.broker.errors import StreamflowError
from streamflow.broker.flow import Graph
from streamflow.broker.routing import Kind, Step

from .flows import Flows
from .jobs import Job
from .outbox import Done, Outbox
from .outgoing import Outgoing
from .reducer import Completed, Reducer

log = logging.getLogger(__name__)

_MEETS = attrgetter("meets")


class Forward:
    """`send` is entered once for each output, `complete_partial` for a request whose deadline is near."""

    def __init__(
        self, bus: Bus, flows: Flows, outgoing: Outgoing, outbox: Outbox, spawn: Callable[[Coroutine[Any, Any, None]], Any]
    ) -> None:
        self._bus = bus
        self._flows = flows
        self._outgoing = outgoing
        self._spawn = spawn
        self._outbox = outbox
        self._reducer = Reducer(bus)

    def answer(self, envelope: Envelope, done: Done) -> None:
        """Straight to the client, whatever hops would follow."""
        self._outbox.answer(envelope, done)

    def send(self, job: Job, envelope: Envelope, done: Done) -> None:
        """To the client on the last hop, else to every next hop and meeting place; `done` follows when the broker has all of it."""
        graph = self._flows.graph(envelope.flow_version)
        steps = self._outgoing.steps(job.envelope)
        if any(map(_MEETS, steps)):
            self._spawn(self._send_parts(envelope, steps, graph, done, job.envelope.claim))
        else:
            self._outbox.post(envelope, steps, graph, done)

    async def _send_parts(self, envelope: Envelope, steps: tuple[Step, ...], graph: Graph, done: Done, claim: Claim | None) -> None:
        """`claim`: of the body that the job came with."""
        try:
            await self._post(envelope, steps, graph, claim)
        except StreamflowError as error:
            done(error)
        except Exception as error:  # `done` must follow, or the delivery would be kept alive for ever
            log.exception("request %s failed in streamflow itself", envelope.request_id)
            done(StreamflowError(f"{type(error).__name__} where the parts of the request meet"))
        else:
            done(None)

    async def complete_partial(self, envelope: Envelope) -> None:
        """The deadline is near and not all parts came: go on with those that did, if nobody has."""
        graph = self._flows.graph(envelope.flow_version)
        try:
            completed = await self._reducer.complete_without(envelope, graph)
            if completed is not None:
                await self._go_on(completed, graph)
        except StreamflowError as error:
            log.warning("request %s: no partial answer: %s", envelope.request_id, error)

    async def _post(self, envelope: Envelope, steps: tuple[Step, ...], graph: Graph, claim: Claim | None = None) -> None:
        """Post `steps`, bringing parts to where they meet; what is completed there goes on in the same way."""
        plain = tuple(step for step in steps if not step.meets)
        if plain:
            await self._outbox.post_wait(envelope, plain, graph)
        for step in steps:
            completed = await self._reducer.arrive(envelope, step, graph) if step.meets else None
            if completed is None:
                continue
            await self._go_on(completed, graph)
            if step.kind is Kind.GATHER and claim is not None:  # all shards have read it
                self._discard_shared(envelope.flow, claim)

    async def _go_on(self, completed: Completed, graph: Graph) -> None:
        await self._post(completed.envelope, completed.steps, graph)
        self._reducer.clear(completed)
        for claim in completed.claims:
            self._spawn(blobs.discard(self._bus, completed.flow, claim))

    def _discard_shared(self, flow: str, claim: Claim) -> None:
        """Later; a worker that ends before leaves it to expire."""
        asyncio.get_running_loop().call_later(blobs.SHARED_S, lambda: self._spawn(blobs.discard_shared(self._bus, flow, claim)))
