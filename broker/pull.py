"""Our own pull loop over a durable pull consumer (ADR-13, ADR-37): standing requests, credit, heartbeats, re-issued after a reconnect.

nats-py's `fetch` stalls on an orphaned request and hoards messages that a slow worker cannot start; this loop asks for exactly as many
messages as its owner has room for. `held` counts what was handed over and not yet settled, `asked` what the broker may still send. What has
run and only waits for the broker to store its outcome takes no room, within bounds: the next one need not wait for that too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from .bus import Bus
from .errors import StreamflowError
from .reach import DOUBT_S

log = logging.getLogger(__name__)

EXPIRES_S = 30.0
HEARTBEAT_S = 1.0
CLUSTER_HEARTBEAT_S = 0.5  # a consumer of a cluster may change its leader, and the new one knows of no requests
RETRY_S = 0.25
FIRST_RETRY_S = 0.05  # a leader that steps down has its successor within so long
FINISHING = 16  # deliveries that have run and take no room; their outcomes are in memory, also while the broker has no room for them
_PENDING_HEADER = b"Nats-Pending-Messages: "


class Delivery:
    """One hand-over of one message. Settled once; a second call is harmless."""

    __slots__ = ("_has_run", "_pull", "_reply", "_words", "attempt", "is_spare", "payload", "settled", "subject")

    def __init__(self, pull: Pull, subject: bytes, reply: bytes, payload: bytes) -> None:
        self._pull = pull
        self._reply = reply.decode()
        self.subject = subject
        self.payload = payload
        self.settled = False
        self.is_spare = False  # to be worked on when nothing else is there
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
            self._pull.ran()

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
        max_bytes: int = 0,
        on_ran: Callable[[], None] | None = None,
        on_settled: Callable[[], None] | None = None,
        on_gone: Callable[[], None] | None = None,
    ) -> None:
        """`max_bytes`: of what is handed over and not settled; any message must be smaller than half of it (0 = no limit). `on_ran`,
        `on_settled`: called after each. `on_gone`: called, and pulling ends, when the consumer does not exist any more; without it the
        pull waits until one does."""
        self._bus = bus
        self._on_ran = on_ran
        self._on_settled = on_settled
        self._on_gone = on_gone
        self._where = f"{stream}/{durable}"
        self._heartbeat_s = CLUSTER_HEARTBEAT_S if bus.is_clustered else HEARTBEAT_S
        self._limits = b'"expires":%d,"idle_heartbeat":%d' % (EXPIRES_S * 1e9, self._heartbeat_s * 1e9)
        if max_bytes:
            self._limits += b',"max_bytes":%d' % (max_bytes // 2)  # of one request; while one is worked off there may be another
        self._is_sated = False
        self._request = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = bus.new_inbox()
        self._handle = handle
        self._capacity = capacity
        self._held = 0
        self.finishing = 0
        self._asked = 0
        self._number = 0
        self._heard = self._served = time.monotonic()
        self._is_trying = False
        self._refusal = b""
        self._later: asyncio.TimerHandle | None = None
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
        if self._later is not None:
            self._later.cancel()
            self._later = None
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

    def ran(self) -> None:
        """One delivery is done but for the broker."""
        self.finishing += 1
        self._ask()
        if self._on_ran is not None:
            self._on_ran()

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

    def _ask(self, most: int = 0) -> None:
        """Ask for what there is room for (at most for `most`), once it is worth a request: half the capacity, or nothing is under way."""
        room = self._capacity - self._held + min(self.finishing, FINISHING) - self._asked
        if self._stopped or room <= 0 or (self._asked and room * 2 < self._capacity) or (self._is_sated and self._held):
            return
        self._is_sated = False
        room = min(room, most or room)
        self._number += 1
        body = b'{"batch":%d,%b}' % (room, self._limits)
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
        self._is_trying, self._refusal = False, b""
        self._served = self._heard
        self._held += 1
        self._asked = max(0, self._asked - 1)
        self._handle(Delivery(self, subject, reply, payload))
        self._ask()

    def _status(self, header: bytes) -> None:
        """A request ended, or a heartbeat: 100 heartbeat; 404 and 408 ordinary ends; 409 and 503 by text (ADR-13)."""
        code = header[9:12]
        was_trying, self._is_trying = self._is_trying, False
        if code != b"503":
            self._served = self._heard
        if code == b"100":
            self._refusal = b""
            if was_trying:
                self._ask()
            return
        self._asked = max(0, self._asked - _pending(header)) if _PENDING_HEADER in header else 0
        if b"Exceeds MaxBytes" in header:
            self._is_sated = True  # until what came is settled
        if code in (b"404", b"408") or self._is_sated:
            self._ask()
            return
        if self._on_gone is not None and (code == b"503" or b"Consumer Deleted" in header):
            self._stopped = True
            self._on_gone()
            return
        self._refused(header[9:].split(b"\r\n", 1)[0])

    def _refused(self, why: bytes) -> None:
        """Ask again a little later: once, however many requests were refused. A consumer may be without a leader for seconds."""
        is_new, self._refusal = why != self._refusal, why
        if is_new:
            log.info("%s: %s; asking again", self._where, why.decode(errors="replace"))
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(FIRST_RETRY_S if is_new else RETRY_S, self._ask_again)

    def _ask_again(self) -> None:
        self._later = None
        self._ask()

    def _reissue(self) -> None:
        """Requests do not survive a broker restart: forget them and ask again."""
        self._is_trying = False
        self._asked = 0
        self._heard = time.monotonic()
        self._ask()

    async def _watch_heartbeats(self) -> None:
        """Two heartbeats missed: the request is gone (a consumer made anew or without a leader, an orphaned pull)."""
        while True:
            await asyncio.sleep(self._heartbeat_s / 2)
            silent = time.monotonic() - self._heard > 2 * self._heartbeat_s
            if self._asked and silent and self._bus.connected:
                self._try()
            elif not self._asked and self._later is None:
                self._ask()
            if self._refusal[:3] == b"503" or self._is_trying:
                self._doubt()

    def _doubt(self) -> None:
        if not self._stopped and time.monotonic() - self._served > DOUBT_S:
            self._bus.doubt(self._where)

    def _try(self) -> None:
        """Ask for one message, again and again until somebody answers, then for the rest: a consumer that is only frozen will see
        each of these requests when it goes on."""
        if not self._is_trying:
            log.info("%s: no heartbeat, asking again", self._where)
        self._is_trying = True
        self._asked = 0
        self._ask(most=1)


def _pending(header: bytes) -> int:
    start = header.index(_PENDING_HEADER) + len(_PENDING_HEADER)
    return int(header[start : header.index(b"\r", start)])
