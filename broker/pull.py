"""Our own pull loop over a durable pull consumer (ADR-13, ADR-37): standing requests, credit, heartbeats, re-issued after a reconnect.

nats-py's `fetch` stalls on an orphaned request and hoards messages that a slow worker cannot start; this loop asks for exactly as many
messages as its owner has room for. `held` counts what was handed over and not yet settled, `asked` what the broker may still send.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from .bus import Bus
from .errors import StreamflowError

log = logging.getLogger(__name__)

EXPIRES_S = 30.0
HEARTBEAT_S = 1.0
RETRY_S = 0.25
_PENDING_HEADER = b"Nats-Pending-Messages: "


class Delivery:
    """One hand-over of one message. Settled once; a second call is harmless."""

    __slots__ = ("_has_run", "_pull", "_reply", "_words", "attempt", "payload", "settled", "subject")

    def __init__(self, pull: Pull, subject: bytes, reply: bytes, payload: bytes) -> None:
        self._pull = pull
        self._reply = reply.decode()
        self.subject = subject
        self.payload = payload
        self.settled = False
        self._has_run = False
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<nanoseconds>.<pending>; a domain and an account may come
        # in front (ADR-15), a token may follow
        words = self._reply.split(".")
        self._words = words[4:9] if len(words) < 11 else words[6:11]
        self.attempt = int(self._words[0])

    @property
    def sequence(self) -> int:
        """In the stream: the same for every delivery of this message."""
        return int(self._words[1])

    @property
    def pending(self) -> int:
        """Messages that the consumer had yet to deliver when it delivered this one."""
        return int(self._words[4])

    @property
    def fencing_token(self) -> int:
        """In the consumer: grows with every delivery."""
        return int(self._words[2])

    @property
    def stored(self) -> float:
        """When the broker stored the message, Unix seconds of its clock."""
        return int(self._words[3]) / 1e9

    @property
    def ack_subject(self) -> str:
        return self._reply

    def ran(self) -> None:
        """The work is done; it is settled once its outcome is safe (`Pull.running`)."""
        if not self.settled and not self._has_run:
            self._has_run = True
            self._pull.finishing += 1

    def ack(self) -> None:
        """Done: never again."""
        self._settle(b"+ACK")

    def nak(self, delay_s: float = 0.0) -> None:
        """Not now: deliver again, to any replica, after `delay_s`."""
        self._settle(b'-NAK {"delay": %d}' % int(delay_s * 1e9) if delay_s > 0 else b"-NAK")

    def term(self) -> None:
        """Never again, and not done: it was given up."""
        self._settle(b"+TERM")

    def leave(self) -> None:
        """Somebody else has a later delivery of this message: the broker is told nothing, since even a late ack would remove it."""
        self._settle(b"")

    def _settle(self, word: bytes) -> None:
        if self.settled:
            return
        self.settled = True
        if self._has_run:
            self._pull.finishing -= 1
        self._pull.settle(self._reply, word)


class Pull:
    """Pulls from one durable consumer and hands each `Delivery` to `handle`, which must not block or raise."""

    def __init__(
        self,
        bus: Bus,
        stream: str,
        durable: str,
        handle: Callable[[Delivery], None],
        *,
        capacity: int = 1,
        on_settled: Callable[[], None] | None = None,
        on_gone: Callable[[], None] | None = None,
    ) -> None:
        """`on_settled`: called after each. `on_gone`: called, and pulling ends, when the consumer does not exist any more; without it the
        pull waits until one does."""
        self._bus = bus
        self._on_settled = on_settled
        self._on_gone = on_gone
        self._where = f"{stream}/{durable}"
        self._request = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = bus.new_inbox()
        self._handle = handle
        self._capacity = capacity
        self._held = 0
        self.finishing = 0
        self._asked = 0
        self._number = 0
        self._heard = time.monotonic()
        self._stopped = True
        self._subscription: object = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def held(self) -> int:
        """Deliveries handed over and not settled yet."""
        return self._held

    @property
    def running(self) -> int:
        """Those among them that are still worked on, or wait to be."""
        return self._held - self.finishing

    async def start(self) -> None:
        self._stopped = False
        self._subscription = await self._bus.listen(self._inbox + ".*", self._arrived)
        self._bus.on_reconnect(self._reissue)
        self._watch = asyncio.create_task(self._watch_heartbeats(), name=f"pull {self._where}")
        self._ask()

    async def stop(self) -> None:
        """Take nothing new. Deliveries that the broker had already sent are still handed over; `held` then only falls."""
        self._stopped = True  # which it may be already: its consumer is gone
        watch, self._watch = self._watch, None
        if watch is None:
            return
        watch.cancel()
        self._bus.off_reconnect(self._reissue)
        try:
            await self._bus.unlisten(self._subscription)
        except Exception as error:
            log.debug("%s: stopped while the broker was away: %s", self._where, error)

    def set_capacity(self, capacity: int) -> None:
        """Room for so many unsettled deliveries from now on."""
        if capacity != self._capacity:
            self._capacity = capacity
            self._ask()

    def settle(self, reply: str, word: bytes) -> None:
        self._held -= 1
        try:
            if word:
                self._bus.publish(reply, word, lazy=True)
        except StreamflowError as error:
            log.warning("%s: a settled message will be delivered again: %s", self._where, error)
        self._ask()
        if self._on_settled is not None:
            self._on_settled()

    def _ask(self) -> None:
        """Ask for what there is room for, once it is worth a request: half the capacity, or nothing is under way."""
        room = self._capacity - self._held - self._asked
        if self._stopped or room <= 0 or (self._asked and room * 2 < self._capacity):
            return
        self._number += 1
        body = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (room, EXPIRES_S * 1e9, HEARTBEAT_S * 1e9)
        try:
            self._bus.publish(self._request, body, f"{self._inbox}.{self._number}")
        except StreamflowError as error:
            log.debug("%s: cannot ask: %s", self._where, error)
            return
        self._asked += room

    def _arrived(self, subject: bytes, reply: bytes, header: bytes | None, payload: bytes) -> None:
        self._heard = time.monotonic()
        if not reply.startswith(b"$JS.ACK"):
            self._status(header or b"")
            return
        self._held += 1
        self._asked = max(0, self._asked - 1)
        self._handle(Delivery(self, subject, reply, payload))
        self._ask()

    def _status(self, header: bytes) -> None:
        """A request ended, or a heartbeat: 100 heartbeat; 404 and 408 ordinary ends; 409 and 503 by text (ADR-13)."""
        code = header[9:12]
        if code == b"100":
            return
        self._asked = max(0, self._asked - _pending(header)) if _PENDING_HEADER in header else 0
        if code in (b"404", b"408"):
            self._ask()
            return
        if self._on_gone is not None and (code == b"503" or b"Consumer Deleted" in header):
            self._stopped = True
            self._on_gone()
            return
        log.info("%s: %s; asking again", self._where, header[9:].split(b"\r\n", 1)[0].decode(errors="replace"))
        asyncio.get_running_loop().call_later(RETRY_S, self._ask)

    def _reissue(self) -> None:
        """Requests do not survive a broker restart: forget them and ask again."""
        self._asked = 0
        self._heard = time.monotonic()
        self._ask()

    async def _watch_heartbeats(self) -> None:
        """Two heartbeats missed: the request is gone (a consumer made anew, an orphaned pull). Ask again."""
        while True:
            await asyncio.sleep(HEARTBEAT_S / 2)
            silent = time.monotonic() - self._heard > 2 * HEARTBEAT_S
            if self._asked and silent and self._bus.connected:
                log.info("%s: no heartbeat, asking again", self._where)
                self._reissue()
            elif not self._asked:
                self._ask()


def _pending(header: bytes) -> int:
    start = header.index(_PENDING_HEADER) + len(_PENDING_HEADER)
    return int(header[start : header.index(b"\r", start)])
