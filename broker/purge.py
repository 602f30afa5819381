"""Emptying a queue without leaving a client hanging: each request is read, answered CANCELLED, and only then removed.

A crash in between leaves requests that are answered and still run, whose late answers are dropped; never one that is gone unanswered.
A request that a worker has in hand is removed too: it ends there, and its answer comes too late. Parts of it that wait elsewhere are
removed; those that come to wait later expire.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, field

from . import blobs, bucket, subjects
from .bus import Bus
from .envelope import EMPTY, Envelope, decode, encode
from .errors import AlreadyExists, Code, InvalidInput, Status, StreamflowError, Unavailable
from .flow import Graph
from .queues import QueueInfo
from .routing import Kind, Step
from .unmet import unmet_by, waiting

log = logging.getLogger(__name__)

BATCH = 256
BATCH_BYTES = 16 << 20
ANSWER_S = 5.0
_SEQUENCE = re.compile(rb"Nats-Sequence: (\d+)")


@dataclass(slots=True)
class _Batch:
    """What one batched direct get brought (ADR-31): messages, their last sequence, and when it has ended."""

    messages: list[bytes] = field(default_factory=list)
    last: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, _subject: bytes, _reply: bytes, header: bytes | None, payload: bytes) -> None:
        found = _SEQUENCE.search(header or b"")
        if (header or b"")[9:12].isdigit() or found is None:  # 204: that was all; 404: nothing there
            self.ended.set()
            return
        self.last = int(found[1])
        self.messages.append(payload)


async def purge(bus: Bus, queue: QueueInfo) -> int:
    """Remove what is in `queue` now; how many messages that were. Raises `Unavailable`, `NotFound`.

    Shards that each get a copy share one message: purging the queue of one purges those of all.
    """
    end = (await bus.api(f"STREAM.INFO.{queue.stream}"))["state"]["last_seq"]
    graphs: dict[str, Graph] = {}
    removed, position = 0, 1
    while position <= end:
        batch = await _read(bus, queue, position)
        if not batch.messages:
            break
        for envelope in await asyncio.gather(*(_answer(bus, queue, message) for message in batch.messages)):
            if envelope is not None:
                await _remove_parts(bus, queue, envelope, graphs)
        await bus.flush()
        position = batch.last + 1
        answer = await bus.api(f"STREAM.PURGE.{queue.stream}", {"filter": queue.subject, "seq": position})
        removed += answer["purged"]
    return removed


async def _read(bus: Bus, queue: QueueInfo, position: int) -> _Batch:
    """Up to `BATCH` messages of `queue` from sequence `position` on. A work queue takes no second consumer, so it is not one."""
    batch, inbox = _Batch(), bus.new_inbox()
    listening = await bus.listen(inbox, batch.hear)
    body = b'{"seq":%d,"next_by_subj":"%b","batch":%d,"max_bytes":%d}' % (position, queue.subject.encode(), BATCH, BATCH_BYTES)
    try:
        bus.publish(f"$JS.API.DIRECT.GET.{queue.stream}", body, inbox)
        async with asyncio.timeout(ANSWER_S):
            await batch.ended.wait()
    except TimeoutError as error:
        raise Unavailable(f"no answer from stream {queue.stream}") from error
    finally:
        await bus.unlisten(listening)
    return batch


async def _answer(bus: Bus, queue: QueueInfo, message: bytes) -> Envelope | None:
    """Tell whoever waits for the request in `message`, and whoever will look for its stored outcome. None for what is no request."""
    try:
        envelope = decode(message)
    except InvalidInput:
        return None
    status = Status(Code.CANCELLED, f"removed from the queue of executor {queue.executor!r} by an operator", executor=queue.executor)
    answer = encode(envelope._replace(body=b"", content_type=EMPTY, hop="", status=status, claim=None, retried=0, final=True))
    if envelope.record:
        await _record(bus, envelope, answer)
    if envelope.reply:
        bus.publish(envelope.reply, answer)
    if envelope.claim is not None:
        await blobs.discard(bus, envelope.flow, envelope.claim)
    return envelope


async def _remove_parts(bus: Bus, queue: QueueInfo, envelope: Envelope, graphs: dict[str, Graph]) -> None:
    """Those of other branches and shards that would wait for this one. `graphs`: definitions of the flow that were looked up before."""
    try:
        graph = graphs.get(envelope.flow_version) or await bucket.load_graph(bus, envelope.flow, envelope.flow_version)
        graphs[envelope.flow_version] = graph
        steps = unmet_by(graph, envelope, queue.subject)
        if queue.lane.startswith("shard-"):  # the message of all of them, some of which may have done their part
            steps = (*steps, Step(Kind.GATHER, envelope.hop))
        for stream, subject in (waiting(envelope, step) for step in steps):
            bus.tell_api(f"STREAM.PURGE.{stream}", {"filter": subject})
    except StreamflowError as error:
        log.debug("request %s: parts of it are left to expire: %s", envelope.request_id, error)


async def _record(bus: Bus, envelope: Envelope, answer: bytes) -> None:
    """Store the outcome, unless there is one: the first writer wins."""
    try:
        await bus.store_first_wait(subjects.result(envelope.flow, envelope.record), answer, keep_s=envelope.keep_s)
        await bus.store_first_wait(subjects.failed(envelope.flow, envelope.record), b"", keep_s=envelope.keep_s)
    except AlreadyExists:
        log.debug("request %s had ended before it was removed", envelope.request_id)
