"""Where parts of a request meet: branches before a join, shards behind an ALL-polled executor, leaves before the answer.

There is no process that holds parts and could die with them. Every worker stores its own part in the place's stream and then looks who
else is there: the one whose part has the highest stream sequence is the last and completes the request before it acks its input. The
stream's order is the same for everybody, so exactly one worker is the last; if it dies its input is delivered again and it completes then.
docs/decisions/0007-joins.md compares this with a reducer that owns a partition.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from streamflow.broker import blobs, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.codec import merge
from streamflow.broker.envelope import COLUMNS, EMPTY, MATRIX, Envelope, Hop, decode, encode
from streamflow.broker.errors import NotFound, StreamflowError, Unavailable
from streamflow.broker.flow import GATEWAY, Graph
from streamflow.broker.routing import Kind, Step, after_join, next_steps, reduces

log = logging.getLogger(__name__)

RETRY_S = 0.25
KINDS = {Kind.JOIN: "join", Kind.GATHER: "gather", Kind.ANSWER: "join"}


@dataclass(frozen=True, slots=True)
class Completed:
    """All parts are in: what goes on, where to, and where the parts lay."""

    envelope: Envelope
    steps: tuple[Step, ...]
    flow: str
    parts_filter: str


class Reducer:
    """Meets parts for one worker. Safe from several tasks."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def arrive(self, envelope: Envelope, step: Step, graph: Graph) -> Completed | None:
        """Store `envelope` as its part of `step`; the completed request if it was the last part, else None.

        Waits through an outage of the broker. Raises what makes this part impossible (`TooLarge`, `InvalidInput`).
        """
        reply = "" if step.floating else envelope.reply
        part = envelope._replace(hop=step.executor, part=step.part, expected=step.expected, reply=reply)
        mine = await self._store(part, step)
        parts = await self._all_parts(part, step, mine)
        if parts is None:
            return None
        return await self._complete(part, step, graph, parts)

    async def _store(self, part: Envelope, step: Step) -> int:
        if len(part.body) > self._bus.settings.inline_bytes:
            part = await blobs.check_in(self._bus, part)
        subject = subjects.part(part.flow, step.executor, part.request_id, KINDS[step.kind], step.part)
        message_id = subjects.message_id(part.request_id, f"{step.executor}.{KINDS[step.kind]}", step.part, part.run)
        message = encode(part)
        while True:
            try:
                return await self._bus.store_wait(subject, message, message_id)
            except Unavailable as error:
                log.warning("request %s: a part waits: %s", part.request_id, error)
                await asyncio.sleep(RETRY_S)

    async def _all_parts(self, part: Envelope, step: Step, mine: int) -> list[Envelope] | None:
        """Every part in merge order, or None when one is missing or another one came later than mine and completes."""
        while True:
            try:
                found = await asyncio.gather(*(self._look(part, step, name) for name in step.expected))
                break
            except Unavailable as error:
                log.warning("request %s: cannot see the other parts: %s", part.request_id, error)
                await asyncio.sleep(RETRY_S)
        present = [each for each in found if each is not None]
        if len(present) < len(found) or max(sequence for sequence, _ in present) > mine:
            return None
        return [decode(message) for _, message in present]

    async def _look(self, part: Envelope, step: Step, name: str) -> tuple[int, bytes] | None:
        stream = subjects.part_stream(part.flow, step.executor)
        return await self._bus.last_message(stream, subjects.part(part.flow, step.executor, part.request_id, KINDS[step.kind], name))

    async def _complete(self, mine: Envelope, step: Step, graph: Graph, parts: list[Envelope]) -> Completed:
        whole = await asyncio.gather(*(self._with_body(part) for part in parts))
        place_filter = subjects.part(mine.flow, step.executor, mine.request_id, KINDS[step.kind], "*")
        steps = self._steps_after(mine, step, graph)
        failed = next((part for part in parts if part.status.code != "OK"), None)
        if failed is not None:  # the client was told by the worker that failed; nobody goes on
            return Completed(failed._replace(body=b"", reply=""), (), mine.flow, place_filter)
        merged = await asyncio.to_thread(merge_parts, whole, step, graph, steps)
        return Completed(merged, steps, mine.flow, place_filter)

    async def _with_body(self, part: Envelope) -> Envelope:
        return await blobs.check_out(self._bus, part) if part.claim is not None else part

    def _steps_after(self, mine: Envelope, step: Step, graph: Graph) -> tuple[Step, ...]:
        if step.kind is Kind.GATHER:
            return next_steps(graph, step.executor, mine.endpoint, mine.target_executor)
        return after_join(graph, step.executor, mine.endpoint, mine.target_executor)

    async def clear(self, completed: Completed) -> None:
        """Remove the parts of a request that has gone on; what a failure leaves ends with the stream's `max_age`."""
        place = completed.parts_filter.split(".")[2]
        try:
            await self._bus.api(f"STREAM.PURGE.{subjects.part_stream(completed.flow, place)}", {"filter": completed.parts_filter})
        except (Unavailable, NotFound, StreamflowError) as error:
            log.debug("parts are left to expire: %s", error)


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
    return first._replace(
        body=body, content_type=content_type, parameters=parameters, results=results, trail=_trail(parts), part="", expected=(), claim=None
    )


def _trail(parts: list[Envelope]) -> tuple[Hop, ...]:
    """Every hop once; branches share what came before they parted."""
    return tuple(dict.fromkeys(hop for part in parts for hop in part.trail))
