"""Answers on their way to a gateway. They are core NATS: fast, and gone when nobody listens at that moment.

Two cheap measures make that safe without a second message per answer. Each answer is published with an inbox, so that the broker says at
once (503, ADR-22 no responders) when its gateway is cut off: then it is sent again until the gateway is back. And what was sent in the
seconds before this connection broke is sent once more after the reconnect, since the broker may have died with it. So is what was sent to
a gateway that comes back from a broken connection of its own: the broker noticed later than we that it was gone. The gateway drops what it
already has.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from typing import NamedTuple

from . import subjects
from .bus import Bus
from .errors import StreamflowError, Unavailable

log = logging.getLogger(__name__)

KEEP_S = 2.0
CLUSTER_KEEP_S = 4.0  # it takes up to 3 s until a server that is cut off from its cluster is left (broker/reach.py)
KEEP_BYTES = 16 << 20
RETRY_S = 0.1
LONGEST_RETRY_S = 1.0
GIVE_UP_S = 60.0


class _Sent(NamedTuple):
    """An answer: when it was sent last, when first (monotonic seconds), where and what."""

    last: float
    first: float
    subject: str
    payload: bytes


def pause_s(age_s: float) -> float:
    """Until an answer that found nobody is sent again: gateways are back at once, or restart, or are gone, and there may be thousands."""
    return min(max(RETRY_S, age_s / 4), LONGEST_RETRY_S)


class ReplySender:
    """Publishes answers of one worker. `await start()` first."""

    def __init__(self, bus: Bus, flow: str) -> None:
        self._bus = bus
        self._flow = flow
        self._inbox = bus.new_inbox()
        self._cut = len(self._inbox) + 1
        self._number = 0
        self._sent: OrderedDict[bytes, _Sent] = OrderedDict()
        self._bytes = 0
        self._lost_at = 0.0

    async def start(self) -> None:
        await self._bus.listen(self._inbox + ".*", self._unheard)
        await self._bus.listen(subjects.control(self._flow, "hello"), lambda s, r, h, payload: self._repeat(payload))
        self._bus.on_disconnect(self._disconnected)
        self._bus.on_reconnect(self._again)

    def send(self, subject: str, payload: bytes) -> None:
        """Publish an answer. Raises `TooLarge`, `Unavailable`."""
        now = time.monotonic()
        self._send(_Sent(now, now, subject, payload))

    def _repeat(self, listened: bytes) -> None:
        """Send again what went lately to the gateway that hears its answers on `listened`; b"" is the greeting of one that is new."""
        place, since = listened.decode(errors="replace").rpartition(".")[0], time.monotonic() - self._keep_s
        for key, sent in [*self._sent.items()]:
            if sent.last > since and sent.subject.rpartition(".")[0] == place:
                del self._sent[key]
                self._bytes -= len(sent.payload)
                self._retry(sent)

    def _send(self, sent: _Sent) -> None:
        self._number += 1
        self._bus.publish(sent.subject, sent.payload, f"{self._inbox}.{self._number:x}")
        self._sent[b"%x" % self._number] = sent
        self._bytes += len(sent.payload)
        self._forget(sent.last - self._keep_s)

    @property
    def _keep_s(self) -> float:
        return CLUSTER_KEEP_S if self._bus.is_clustered else KEEP_S

    def _forget(self, sent_before: float) -> None:
        """Drop what is older; while the connection is down nothing is, since all of it may have to go again."""
        while self._sent and self._bus.connected:
            key, oldest = next(iter(self._sent.items()))
            if oldest.last > sent_before and self._bytes <= KEEP_BYTES:
                return
            del self._sent[key]
            self._bytes -= len(oldest.payload)

    def _unheard(self, subject: bytes, _reply: bytes, _header: bytes | None, _payload: bytes) -> None:
        """No responders: the gateway is cut off or gone."""
        sent = self._sent.pop(subject[self._cut :], None)
        if sent is None:
            return
        self._bytes -= len(sent.payload)
        age_s = time.monotonic() - sent.first
        if age_s > GIVE_UP_S:
            log.info("an answer found nobody for %g s: dropped", GIVE_UP_S)
            return
        asyncio.get_running_loop().call_later(pause_s(age_s), self._retry, sent)

    def _retry(self, sent: _Sent) -> None:
        try:
            self._send(sent._replace(last=time.monotonic()))
        except Unavailable as error:  # the send buffer is full: as if nobody had listened
            log.debug("an answer could not be sent again yet: %s", error)
            if time.monotonic() - sent.first <= GIVE_UP_S:
                asyncio.get_running_loop().call_later(RETRY_S, self._retry, sent)
        except StreamflowError as error:
            log.warning("an answer could not be sent again: %s", error)

    def _disconnected(self) -> None:
        self._lost_at = time.monotonic()

    def _again(self) -> None:
        doubtful = [sent for sent in self._sent.values() if sent.last > self._lost_at - self._keep_s]
        self._sent.clear()
        self._bytes = 0
        for sent in doubtful:
            self._retry(sent)
