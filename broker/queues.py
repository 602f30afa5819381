"""What waits where, and what an operator may do about it: pause, resume, purge. Read and done by JetStream's API alone.

A queue is one durable consumer: a lane of an executor ("now", "bulk"), a shard's copy of what is polled from ALL ("shard-0"), or what is
tried again ("again-any"). Its lag is what autoscalers should follow: a request that runs is still in the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from . import subjects
from .announce import BEAT_S, Announcement, State
from .bus import Bus
from .errors import InvalidInput, NotFound, Unavailable
from .hints import hint

FOR_EVER_S = 100 * 365 * 86400.0  # the broker wants an end of a pause
_ANSWER_S = 0.1  # within which those who are there have answered
_PAGES = ("streams", "consumers")


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One queue at one moment. `pulls`: open pull requests, 0 when nobody is there, or free, to take anything; `workers`: ready ones that
    take from it, where they were counted (`with_workers`). Bytes are those of all lanes."""

    flow: str
    executor: str
    lane: str
    pending: int  # not delivered yet
    ack_pending: int  # delivered, not settled: they run, or wait in a worker
    redelivered: int  # of those, how many not for the first time
    oldest_s: float | None  # seconds since the oldest unsettled message was stored
    bytes: int
    max_bytes: int  # more are refused; -1 = no limit
    pulls: int
    paused_s: float  # seconds until it goes on by itself; 0.0 = not paused
    stream: str
    durable: str
    subject: str
    workers: int = 0

    @property
    def lag(self) -> int:
        return self.pending + self.ack_pending

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "lag": self.lag, "paused": self.paused_s > 0}


async def list_queues(bus: Bus) -> list[QueueInfo]:
    """All queues of all flows on this broker, by flow, executor and lane. Raises `Unavailable`."""
    found = await asyncio.gather(*(_queues_of(bus, stream) for stream in (await list_streams(bus)).values()))
    return sorted((queue for queues in found for queue in queues), key=lambda queue: (queue.flow, queue.executor, queue.lane))


async def list_streams(bus: Bus) -> dict[str, dict[str, Any]]:
    """Every stream of this broker (of this account) as JetStream tells of it, by name. Raises `Unavailable`."""
    return {stream["config"]["name"]: stream for stream in await _pages(bus, "STREAM.LIST", {})}


async def _queues_of(bus: Bus, stream: dict[str, Any]) -> list[QueueInfo]:
    if not any(subjects.queue_of(stream["config"]["name"], subject) for subject in stream["config"].get("subjects", ())):
        return []
    try:
        consumers = await _pages(bus, f"CONSUMER.LIST.{stream['config']['name']}", {})
    except NotFound:
        return []  # deleted meanwhile
    return [queue for queue in await asyncio.gather(*(_queue(bus, stream, consumer) for consumer in consumers)) if queue]


async def _queue(bus: Bus, stream: dict[str, Any], consumer: dict[str, Any]) -> QueueInfo | None:
    subject = consumer["config"].get("filter_subject", "")
    place = subjects.queue_of(consumer["stream_name"], subject)
    if place is None:
        return None
    flow, executor = place
    is_empty = not consumer["num_pending"] + consumer["num_ack_pending"]
    return QueueInfo(
        flow=flow,
        executor=executor,
        lane=consumer["name"],
        pending=consumer["num_pending"],
        ack_pending=consumer["num_ack_pending"],
        redelivered=consumer["num_redelivered"],
        oldest_s=None if is_empty else await _oldest_s(bus, consumer["stream_name"], subject, consumer["ack_floor"]["stream_seq"]),
        bytes=stream["state"]["bytes"],
        max_bytes=stream["config"].get("max_bytes", -1),
        pulls=consumer["num_waiting"],
        paused_s=consumer.get("pause_remaining", 0) / 1e9 if consumer.get("paused") else 0.0,
        stream=consumer["stream_name"],
        durable=consumer["name"],
        subject=subject,
    )


async def _oldest_s(bus: Bus, stream: str, subject: str, settled: int) -> float | None:
    """Age of the first message on `subject` behind sequence `settled`; None when it is gone by now."""
    try:
        answer = await bus.api(f"STREAM.MSG.GET.{stream}", {"seq": settled + 1, "next_by_subj": subject})
    except NotFound:
        return None
    return max(0.0, time.time() - datetime.fromisoformat(answer["message"]["time"]).timestamp())


async def _pages(bus: Bus, call: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """All items of a list that the broker hands out page by page."""
    items: list[dict[str, Any]] = []
    while True:
        page = await bus.api(call, {**body, "offset": len(items)})
        if page.get("missing"):
            raise Unavailable(f"no answer about {', '.join(page['missing'])}: they have no leader at the moment")
        got: list[dict[str, Any]] = next((page[key] for key in _PAGES if page.get(key)), [])
        items += got
        if not got or len(items) >= page["total"]:
            return items


def select(queues: Sequence[QueueInfo], flow: str, executor: str = "", lane: str = "") -> list[QueueInfo]:
    """Those of `queues` at this place; "" = any. Raises `NotFound` that says what may have been meant."""
    found = _matching(queues, "flow", "flow", flow)
    found = _matching(found, f"flow {flow!r}: executor", "executor", executor) if executor else found
    return _matching(found, f"executor {executor!r}: lane", "lane", lane) if lane else found


def _matching(queues: Sequence[QueueInfo], what: str, field: str, wanted: str) -> list[QueueInfo]:
    found = [queue for queue in queues if getattr(queue, field) == wanted]
    if not found:
        raise NotFound(f"{what} {wanted!r} has no queue on this broker{hint(wanted, {getattr(queue, field) for queue in queues})}")
    return found


async def with_workers(bus: Bus, queues: Sequence[QueueInfo]) -> list[QueueInfo]:
    """`queues` with their workers counted, by what workers say of themselves (announce.py).

    One whose loop is busy answers at its next beat, so the answer takes up to that long where a queue is pulled from and nobody was heard.
    """
    heard: dict[str, Announcement] = {}

    def hear(_subject: bytes, _reply: bytes, _header: bytes | None, payload: bytes) -> None:
        with contextlib.suppress(InvalidInput):
            said = Announcement.decode(payload)
            heard[said.instance] = said

    flows = sorted({queue.flow for queue in queues})
    listening = [await bus.listen(subjects.control(flow, "announce"), hear) for flow in flows]
    try:
        for flow in flows:
            bus.publish(subjects.control(flow, "hello"), b"")
        limit = time.monotonic() + BEAT_S
        await asyncio.sleep(_ANSWER_S)
        while time.monotonic() < limit and not all(_workers(queue, heard) for queue in queues if queue.pulls or queue.ack_pending):
            await asyncio.sleep(_ANSWER_S)
    finally:
        for subscription in listening:
            await bus.unlisten(subscription)
    return [replace(queue, workers=_workers(queue, heard)) for queue in queues]


def _workers(queue: QueueInfo, heard: Mapping[str, Announcement]) -> int:
    shard = queue.lane.rpartition("-")[2]  # "shard-0", "again-0"; other lanes are those of all shards
    mine = (said for said in heard.values() if (said.flow, said.executor) == (queue.flow, queue.executor) and said.state is State.READY)
    return sum(not shard.isdecimal() or said.shard == int(shard) for said in mine)


async def pause(bus: Bus, queue: QueueInfo, seconds: float = FOR_EVER_S) -> None:
    """Hand out nothing of `queue` for so long; what runs goes on, what comes waits. Outlives restarts and new versions of the flow."""
    until = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()
    await bus.api(f"CONSUMER.PAUSE.{queue.stream}.{queue.durable}", {"pause_until": until})


async def resume(bus: Bus, queue: QueueInfo) -> None:
    await bus.api(f"CONSUMER.PAUSE.{queue.stream}.{queue.durable}", {})
