"""Reading what a stream holds, in order, from a place on: results, job inputs, dead letters, a write log.

An ephemeral consumer without acks (ADR-17's ordered consumer, by pull): when it is lost, with its broker or by a gap, another one takes
over behind the last message that was read, so a reader sees each message once and in order whatever happens below.
"""

from __future__ import annotations

import asyncio
import datetime
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from .bus import Bus
from .errors import NotFound, Unavailable
from .pull import Delivery, Pull

AHEAD = 256
AHEAD_BYTES = 16 << 20
IDLE_S = 30
RETRY_S = 0.25
SILENT_S = 2.0  # without a message that is to come, after which it is seen whether there still is one


@dataclass(frozen=True, slots=True)
class Stored:
    """One message of a stream. `time`: when the broker stored it, Unix seconds. `pending`: how many were behind it when it was sent."""

    sequence: int
    subject: str
    payload: bytes
    time: float
    pending: int


async def count(bus: Bus, stream: str, *filters: str, after: int = 0) -> int:
    """How many messages of `stream` behind sequence `after` are on subjects of `filters`. Raises `NotFound` (no such stream),
    `Unavailable`."""
    consumer = await _create(bus, stream, filters, after)
    await bus.api(f"CONSUMER.DELETE.{stream}.{consumer['name']}")
    return int(consumer["num_pending"])


async def read(
    bus: Bus, stream: str, *filters: str, after: int = 0, since: float | None = None, follow: bool = False, headers_only: bool = False
) -> AsyncGenerator[Stored, None]:
    """The messages of `stream` on subjects of `filters`, in order: those behind sequence `after`, or stored from Unix time `since` on.

    Ends with the last one that is there, or with `follow` never. Memory is bounded by `AHEAD` messages and `AHEAD_BYTES`. With
    `headers_only` payloads are empty. Close the generator (`contextlib.aclosing`) when leaving it early. Raises `NotFound` when there is no
    such stream, `Unavailable` when no broker answers.
    """
    reader = _Reader(bus, stream, filters, after, since, headers_only)
    try:
        while True:
            message = await reader.next(follow)
            if message is None:
                return
            yield message
    finally:
        await reader.close()


class _Reader:
    def __init__(self, bus: Bus, stream: str, filters: tuple[str, ...], after: int, since: float | None, headers_only: bool) -> None:
        self._bus = bus
        self._stream = stream
        self._filters = filters
        self._after = after
        self._since = since
        self._headers_only = headers_only
        self._waiting: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._pull: Pull | None = None
        self._name = ""
        self._expected = 1  # the consumer's own count: a gap means that a message was lost on the way
        self._left = 0
        self._is_lost = False

    async def next(self, follow: bool) -> Stored | None:
        """The next message; None at the end, unless `follow`."""
        while True:
            if self._pull is None:
                await self._open()
            while self._waiting:
                message = self._take(self._waiting.popleft())
                if message is not None:
                    return message
            if self._is_lost:
                await self._drop()
                continue
            if not follow and not self._left:
                return None
            await self._wait(follow)

    async def _wait(self, follow: bool) -> None:
        """For the next message. What was counted and does not come may have been removed since: another consumer counts anew."""
        self._arrived.clear()
        try:
            async with asyncio.timeout(None if follow else SILENT_S):
                await self._arrived.wait()
        except TimeoutError:
            self._is_lost = True

    def _take(self, delivery: Delivery) -> Stored | None:
        if delivery.fencing_token != self._expected:
            self._is_lost = True
            self._waiting.clear()
            return None
        self._expected += 1
        self._left = delivery.pending
        self._after, self._since = delivery.sequence, None
        delivery.leave()
        return Stored(delivery.sequence, delivery.subject.decode(), delivery.payload, delivery.stored, delivery.pending)

    async def _open(self) -> None:
        while True:
            try:
                created = await _create(self._bus, self._stream, self._filters, self._after, self._since, self._headers_only)
                break
            except Unavailable:
                if not self._name:
                    raise
                await asyncio.sleep(RETRY_S)
        self._name, self._left, self._expected, self._is_lost = created["name"], created["num_pending"], 1, False
        self._pull = Pull(self._bus, self._stream, self._name, self._hear, capacity=AHEAD, max_bytes=AHEAD_BYTES, on_gone=self._gone)
        await self._pull.start()

    def _hear(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._arrived.set()

    def _gone(self) -> None:
        """The consumer is no more: its broker started anew, or nobody read for `IDLE_S`."""
        self._is_lost = True
        self._arrived.set()

    async def _drop(self) -> None:
        pull, self._pull = self._pull, None
        self._waiting.clear()
        if pull is not None:
            await pull.stop()

    async def close(self) -> None:
        await self._drop()
        if not self._name or self._is_lost:
            return
        try:
            await self._bus.api(f"CONSUMER.DELETE.{self._stream}.{self._name}", timeout_s=1.0)
        except (NotFound, Unavailable):
            return


async def _create(
    bus: Bus, stream: str, filters: tuple[str, ...], after: int, since: float | None = None, headers_only: bool = False
) -> dict[str, Any]:
    """An ephemeral consumer: its name and how many messages it has to deliver."""
    config: dict[str, Any] = {"ack_policy": "none", "mem_storage": True, "num_replicas": 1, "inactive_threshold": IDLE_S * 1_000_000_000}
    if headers_only:
        config["headers_only"] = True
    if filters:
        config["filter_subjects"] = list(filters)
    if since is not None:
        # A float holds a time of today to 0.24 us: start a little early rather than a message late.
        stamp = datetime.datetime.fromtimestamp(since - 1e-6, datetime.UTC).isoformat()
        config |= {"deliver_policy": "by_start_time", "opt_start_time": stamp}
    elif after:
        config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
    else:
        config["deliver_policy"] = "all"
    return await bus.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
