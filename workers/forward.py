"""The way on from a worker: outputs to the client, to the next hops, and to the places where parts of a request meet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from operator import attrgetter
from typing import Any

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import Claim, Envelope
from streamflow.broker.errors import StreamflowError
from streamflow.broker.flow import Graph
from streamflow.broker.routing import Kind, Step, next_steps
from streamflow.broker.unmet import waiting

from .executions import Execution
from .flows import Flows
from .gathering import Gathering
from .outbox import Done, Outbox
from .outgoing import Identity, Outgoing
from .reducer import INLINE_MERGE_BYTES, Completed, Reducer, as_part, merge_parts

log = logging.getLogger(__name__)

TIDY_S = (1.0, 5.0, 30.0)
_MEETS = attrgetter("meets")


class Forward:
    """`send` is entered once for each output, `complete_partial` for a request whose deadline is near."""

    def __init__(
        self,
        identity: Identity,
        bus: Bus,
        flows: Flows,
        outgoing: Outgoing,
        outbox: Outbox,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:
        self._me = identity
        self._fanned_out = subjects.fan_out(identity.flow, identity.executor, "")
        self._bus = bus
        self._flows = flows
        self._outgoing = outgoing
        self._spawn = spawn
        self._outbox = outbox
        self._reducer = Reducer(bus, spawn)
        self._gathering = Gathering(bus, identity, self._gathered, self._forget_part)

    async def start(self) -> None:
        await self._gathering.start()

    def leave(self) -> None:
        """No new requests come."""
        self._gathering.leave()

    def answer(self, envelope: Envelope, done: Done) -> None:
        """Straight to the client, whatever hops would follow."""
        self._outbox.answer(envelope, done)

    def send(self, execution: Execution, envelope: Envelope, done: Done) -> None:
        """To the client on the last hop, else to every next hop and meeting place; `done` follows when the broker has all of it."""
        graph = self._flows.graph(envelope.flow_version)
        steps = self._outgoing.steps(execution.envelope)
        if not any(map(_MEETS, steps)):
            self._outbox.post(envelope, steps, graph, done)
            return
        claim = execution.envelope.claim

        def store() -> None:
            self._spawn(self._finish(envelope.request_id, self._post(envelope, steps, graph, claim), done))
            if (
                execution.delivery.attempt > 1
                and execution.subject.startswith(self._fanned_out)
                and not graph.node(steps[0].executor).retry_on
            ):
                self._tidy_later(execution.delivery.sequence, as_part(envelope._replace(body=b""), steps[0]), steps[0])

        if steps[0].kind is Kind.GATHER:
            self._gathering.send(execution, as_part(envelope, steps[0]), steps[0], done, store)
        else:
            store()

    async def _finish(self, request_id: str, way: Coroutine[Any, Any, None], done: Done) -> None:
        """`done` follows whatever happens, or the delivery would be kept alive for ever."""
        try:
            await way
        except Exception as error:
            done(_ours(error, request_id))
        else:
            done(None)

    def _gathered(self, parts: list[Envelope], step: Step, done: Done) -> None:
        """All shards have handed over their parts."""
        first = parts[0]
        graph = self._flows.graph(first.flow_version)
        steps = next_steps(graph, step.executor, first.endpoint, first.target_executor)
        if any(map(_MEETS, steps)) or sum(len(part.body) for part in parts) > INLINE_MERGE_BYTES:
            self._spawn(self._finish(first.request_id, self._merge_and_post(parts, step, graph), done))
            return
        try:
            merged = merge_parts(parts, step, graph, steps)
        except Exception as error:
            done(_ours(error, first.request_id))
        else:
            self._outbox.post(merged, steps, graph, done)

    async def _merge_and_post(self, parts: list[Envelope], step: Step, graph: Graph) -> None:
        completed = await self._reducer.complete(parts[0], step, graph, parts)
        await self._post(completed.envelope, completed.steps, graph)

    def _tidy_later(self, sequence: int, part: Envelope, step: Step) -> None:
        """A part that came again may have nobody to meet: its request went on, and whoever knew has died since."""
        for later_s in TIDY_S:
            asyncio.get_running_loop().call_later(later_s, lambda: self._spawn(self._tidy(sequence, part, step)))

    async def _tidy(self, sequence: int, part: Envelope, step: Step) -> None:
        """A shard acks when its part is stored, or when the request has gone on (an error is a blank part): one that has, and has no part
        there, tells that nobody waits for this one."""
        stream = subjects.fan_out_stream(self._me.flow, self._me.executor)
        try:
            names = [name for name in step.expected if name != step.part]
            acked = [name for name in names if await self._has_acked(stream, name, sequence)]
            if acked and await self._reducer.waits_without(part, step, acked):
                self._forget_part(part)
        except StreamflowError as error:
            log.debug("request %s: its part is left to expire: %s", part.request_id, error)

    async def _has_acked(self, stream: str, shard: str, sequence: int) -> bool:
        consumer = await self._bus.consumer(stream, subjects.shard_durable(int(shard)))
        return consumer is not None and int(consumer["ack_floor"]["stream_seq"]) >= sequence

    def _forget_part(self, part: Envelope) -> None:
        """It was stored while the request went on without."""
        self._reducer.clear(part.flow, waiting(part, Step(Kind.GATHER, part.hop))[1])

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
            await self._go_on(completed, graph, claim if step.kind is Kind.GATHER else None)

    async def _go_on(self, completed: Completed, graph: Graph, shared: Claim | None = None) -> None:
        """`shared`: the body that all shards were given, and have read."""
        await self._post(completed.envelope, completed.steps, graph)
        self._reducer.remove(completed, shared)


def _ours(error: Exception, request_id: str) -> StreamflowError:
    if isinstance(error, StreamflowError):
        return error
    log.error("request %s failed in streamflow itself", request_id, exc_info=error)
    return StreamflowError(f"{type(error).__name__} where the parts of the request meet")
