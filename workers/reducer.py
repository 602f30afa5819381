"""Where parts of a request meet: branches before a join, shards behind an ALL-polled executor, leaves before the answer.

There is no process that holds parts and could die with them. Every worker stores its own part in the place's stream and then looks who
else is there: the one whose part has the highest stream sequence is the last and completes the request before it acks its input. The
stream's order is the same for everybody, so exactly one worker is the last; if it dies its input is delivered again and it completes then.
docs/decisions/0007-joins.md compares this with a reducer that owns a partition.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from streamflow.broker import blobs, subjects
from streamflow.broker.bus import Bus, Found
from streamflow.broker.codec import merge
from streamflow.broker.envelope import COLUMNS, EMPTY, MATRIX, Claim, Envelope, Hop, decode, encode
from streamflow.broker.errors import NotFound, Unavailable
from streamflow.broker.flow import GATEWAY, Graph
from streamflow.broker.lifetimes import under_way_s
from streamflow.broker.routing import Kind, Step, after_join, next_steps, reduces
from streamflow.broker.unmet import meeting, waiting

from .patience import FULL_S, patiently

log = logging.getLogger(__name__)

INLINE_MERGE_BYTES = 32 * 1024  # larger ones are merged in a thread
MISSING = "__missing__"  # in results: executor -> branches or shards that a partial answer lacks


@dataclass(frozen=True, slots=True)
class Completed:
    """All parts are in: what goes on, where to, and where the parts lay, their large bodies too."""

    envelope: Envelope
    steps: tuple[Step, ...]
    flow: str
    parts_filter: str
    claims: tuple[Claim, ...] = ()


class Reducer:
    """Meets parts for one worker. Safe from several tasks."""

    def __init__(self, bus: Bus, spawn: Callable[[Coroutine[Any, Any, None]], Any]) -> None:
        self._bus = bus
        self._spawn = spawn

    async def arrive(self, envelope: Envelope, step: Step, graph: Graph) -> Completed | None:
        """Store `envelope` as its part of `step`; the completed request if it was the last part, else None.

        Waits through an outage of the broker. Raises what makes this part impossible (`TooLarge`, `InvalidInput`).
        """
        part = as_part(envelope, step)
        mine, claim = await self._store(part, step)
        parts = await self._all_parts(part, step, mine)
        if parts is None:
            return None
        try:
            completed = await self.complete(part, step, graph, parts)
        except NotFound:
            if (await self._look(part, step, [step.part]))[0] is None:
                return None  # another attempt has completed it meanwhile, and removed the bodies
            raise
        return replace(completed, claims=(*completed.claims, claim)) if claim is not None else completed

    async def complete_without(self, order: Envelope, graph: Graph) -> Completed | None:
        """The parts that wait at `order.hop`, completed without `order.missing` and marked so (allow_partial); None when they went on
        meanwhile.

        `order.part` is the kind, join or gather. Whoever completes publishes under the same message id, so only one of them goes on.
        """
        step = Step(Kind.GATHER if order.part == "gather" else Kind.JOIN, order.hop, expected=order.expected)
        found = await self._look(order, step, step.expected)
        parts = [decode(message) for each in found if each is not None for message in each[1:]]
        if not parts or len(parts) == len(step.expected):
            return None
        completed = await self.complete(order, step, graph, parts)
        marks = {**completed.envelope.results, MISSING: {order.hop: list(order.missing)}}
        return replace(completed, envelope=completed.envelope._replace(results=marks))

    async def _store(self, part: Envelope, step: Step) -> tuple[int, Claim | None]:
        """The sequence of the part in its place's stream, and where its body lies when it is large."""
        what = f"request {part.request_id}: a part waits"
        if len(part.body) > self._bus.settings.inline_bytes:
            whole = part
            part = await patiently(what, lambda: blobs.check_in(self._bus, whole), full_s=FULL_S)
        _, subject = waiting(part, step, step.part)
        message_id = subjects.message_id(part.ticket, f"{step.executor}.{meeting(step.kind)}", step.part, part.run)
        message = encode(part)
        keep_s = under_way_s(part, self._bus.settings)
        return await patiently(what, lambda: self._bus.store_wait(subject, message, message_id, keep_s=keep_s), full_s=FULL_S), part.claim

    async def _all_parts(self, part: Envelope, step: Step, mine: int) -> list[Envelope] | None:
        """Every part in merge order, or None when one is missing or another one came later than mine and completes."""
        others = [name for name in step.expected if name != step.part]
        looked = await patiently(f"request {part.request_id}: cannot see the other parts", lambda: self._look(part, step, others))
        found = dict(zip(others, looked, strict=True))
        present = {name: each for name, each in found.items() if each is not None}
        if len(present) < len(others) or any(sequence > mine for sequence, _ in present.values()):
            return None
        return [part if name == step.part else decode(present[name][1]) for name in step.expected]

    async def waits_without(self, part: Envelope, step: Step, names: Sequence[str]) -> bool:
        """Whether `part`, and not one of another run of its request, waits at `step`, and one of `names` does not."""
        mine, *others = await self._look(part, step, [step.part, *names])
        return mine is not None and decode(mine[1]).run == part.run and None in others

    async def _look(self, part: Envelope, step: Step, names: Sequence[str]) -> list[Found]:
        return await self._bus.last_messages(waiting(part, step)[0], [waiting(part, step, name)[1] for name in names])

    async def complete(self, mine: Envelope, step: Step, graph: Graph, parts: list[Envelope]) -> Completed:
        """What goes on from `step`, made of all its `parts` in merge order. Raises what makes the merge impossible."""
        whole = [part if part.claim is None else await self._whole(part) for part in parts]
        claims = tuple(part.claim for part in parts if part.claim is not None)
        _, place_filter = waiting(mine, step)
        steps = self._steps_after(mine, step, graph)
        failed = next((part for part in parts if part.status.code != "OK"), None)
        if failed is not None:  # the client was told by the worker that failed; nobody goes on
            return Completed(failed._replace(body=b"", reply=""), (), mine.flow, place_filter, claims)
        if sum(len(part.body) for part in whole) <= INLINE_MERGE_BYTES:
            merged = merge_parts(whole, step, graph, steps)
        else:
            merged = await asyncio.to_thread(merge_parts, whole, step, graph, steps)
        return Completed(merged, steps, mine.flow, place_filter, claims)

    async def _whole(self, part: Envelope) -> Envelope:
        return await patiently(f"request {part.request_id}: a part's body waits", lambda: blobs.check_out(self._bus, part))

    def _steps_after(self, mine: Envelope, step: Step, graph: Graph) -> tuple[Step, ...]:
        if step.kind is Kind.GATHER:
            return next_steps(graph, step.executor, mine.endpoint, mine.target_executor)
        return after_join(graph, step.executor, mine.endpoint, mine.target_executor)

    def remove(self, completed: Completed, shared: Claim | None = None) -> None:
        """The parts of a request that has gone on, or will not, and their large bodies; `shared`, which all shards were given, later: a
        worker that ends before leaves it to expire."""
        self.clear(completed.flow, completed.parts_filter)
        for claim in completed.claims:
            self._spawn(blobs.discard(self._bus, completed.flow, claim))
        if shared is not None:
            discard = partial(blobs.discard_shared, self._bus, completed.flow, shared)
            asyncio.get_running_loop().call_later(blobs.SHARED_S, lambda: self._spawn(discard()))

    def clear(self, flow: str, parts_filter: str) -> None:
        """Remove the parts of a request that has gone on, or will not."""
        place = parts_filter.split(".")[2]
        try:
            self._bus.tell_api(f"STREAM.PURGE.{subjects.part_stream(flow, place)}", {"filter": parts_filter})
        except Unavailable as error:
            log.debug("parts are left to expire: %s", error)


def as_part(envelope: Envelope, step: Step) -> Envelope:
    """`envelope` as the part that it is of `step`."""
    reply, record = ("", "") if step.floating else (envelope.reply, envelope.record)
    return envelope._replace(hop=step.executor, part=step.part, expected=step.expected, reply=reply, record=record)


def merge_parts(parts: list[Envelope], step: Step, graph: Graph, steps: tuple[Step, ...]) -> Envelope:
    """One envelope for `parts` in merge order: their documents, results, parameters and trails together. CPU work, no I/O."""
    is_answer = len(steps) == 1 and steps[0].kind is Kind.ANSWER and not steps[0].expected
    first = parts[0]
    bodies = [merge.Part(part.part, part.content_type, part.body) for part in parts]
    if step.kind is Kind.JOIN and step.executor != GATEWAY and not reduces(graph, step.executor, first.target_executor):
        body, content_type = merge.stack(bodies), MATRIX
    else:
        content_type = first.accept if is_answer else COLUMNS
        body = merge.merge(bodies, content_type) if content_type != EMPTY else b""
    parameters: dict[str, object] = {}
    results: dict[str, object] = {}
    for part in parts:
        parameters |= part.parameters
        results |= part.results
    merged = first._replace(body=body, content_type=content_type, pieces=(), claim=None)
    return merged._replace(parameters=parameters, results=results, trail=_trail(parts), part="", expected=())


def _trail(parts: list[Envelope]) -> tuple[Hop, ...]:
    """Every hop once; branches share what came before they parted."""
    return tuple(dict.fromkeys(hop for part in parts for hop in part.trail))
