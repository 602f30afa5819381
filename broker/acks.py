"""Publish-acks: what was published to be stored, until the broker says that it has it, or never will.

A publish without an answer is sent again with the same header, hence the same message id, so that the stream drops the second one.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from nats.errors import Error as NatsError

from .errors import Overloaded, PermissionDenied, StreamflowError, TooLarge, Unavailable
from .lean import LeanClient
from .reach import DOUBT_S
from .refusals import UnderWay, refusal
from .stall import Stalls, place_of

log = logging.getLogger(__name__)

Stored = Callable[[int, StreamflowError | None], None]  # sequence in the stream, or 0 and why not

STORE_TIMEOUT_S = 10.0
RESEND_S = 2.0
SWEEP_S = 0.25
PING_S = 0.5
FIRST_TRY_S = 0.05
LATE_S = 0.2  # without an answer for so long when another one came: what is lost, not what is under way
ELECTION_S = 20.0  # a stream of a cluster may be without a leader for so long: NATS elects one in 4 to 9 s, a second try included
_SEQ = re.compile(rb'"seq":\s*(\d+)')


@dataclass(slots=True)
class _Pending:
    """One stored publish that waits for its publish-ack."""

    subject: str
    payload: bytes
    header: bytes
    done: Stored
    since: float
    sent: float

    def end(self, sequence: int, error: StreamflowError | None) -> None:
        """Tell whoever published; what that raises must not end the read loop or the sweeper."""
        try:
            self.done(sequence, error)
        except Exception:
            log.exception("the end of a publish to %s was not handled", self.subject)


class Acks:
    """The open publishes of one connection. `heard` is to be called with what arrives on `inbox`.*"""

    def __init__(self, client: LeanClient, inbox: str, doubt: Callable[[str], None]) -> None:
        """`doubt`: called with a place that has acknowledged nothing for `DOUBT_S`, in a cluster."""
        self._client = client
        self._doubt = doubt
        self.inbox = inbox
        self._cut = len(inbox) + 1
        self._pending: dict[bytes, _Pending] = {}
        self._stalls = Stalls()
        self._leaderless: set[str] = set()  # places of a cluster that acknowledge nothing
        self._tickets = 0
        self._sweeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._sweeper = asyncio.create_task(self._sweep(), name="publish-acks")

    def stop(self) -> None:
        """No more is sent again; `end_all` tells whoever still waits."""
        if self._sweeper is not None:
            self._sweeper.cancel()

    def store(self, subject: str, payload: bytes, header: bytes, done: Stored) -> None:
        """Publish; `done(sequence, error)` is called once (`Bus.store`)."""
        self._tickets += 1
        ticket = b"%x" % self._tickets
        now = time.monotonic()
        if self._stalls.stalled and self._stalls.refuses(subject, now):
            done(0, _stalled(subject))
            return
        try:
            self._client.send(subject, payload, f"{self.inbox}.{self._tickets:x}", header)
        except (TooLarge, Unavailable) as error:
            done(0, error)
            return
        self._pending[ticket] = _Pending(subject, payload, header, done, now, now)

    def heard(self, subject: bytes, _reply: bytes, header: bytes | None, payload: bytes) -> None:
        ticket = subject[self._cut :]
        pending = self._pending.pop(ticket, None)
        if pending is None:
            return
        if self._stalls.stalled:
            self._stalls.ended(pending.subject)
        error = refusal(pending.subject, header, payload)
        if error is not None and self._may_pass(pending, error):
            self._pending[ticket] = pending
            return
        if error is None and self._leaderless:
            self._found_leader(place_of(pending.subject))
        pending.end(0 if error else _sequence(payload), error)

    def _may_pass(self, pending: _Pending, error: StreamflowError) -> bool:
        """Whether to send it again rather than to give up: an earlier sending of it is under way, or its stream has no leader now."""
        if isinstance(error, UnderWay):
            return True
        if not isinstance(error, Unavailable) or time.monotonic() - pending.since > self._patience_s:
            return False
        if self._client.is_clustered:
            self._lost_leader(place_of(pending.subject))
        return self._client.is_clustered

    def _lost_leader(self, place: str) -> None:
        """The stream behind `place` refuses. One that steps down has its successor at once; else the sweeper tries on."""
        if place not in self._leaderless:
            self._leaderless.add(place)
            asyncio.get_running_loop().call_later(FIRST_TRY_S, self._try_oldest, {place})

    def _try_oldest(self, places: set[str]) -> None:
        """Send the oldest publish of each place again."""
        oldest: dict[str, bytes] = {}
        for ticket, pending in self._pending.items() if places else ():
            if (place := place_of(pending.subject)) in places:
                oldest.setdefault(place, ticket)
        for ticket in oldest.values():
            self._send_again(ticket, self._pending[ticket])

    def _found_leader(self, place: str) -> None:
        """The stream behind `place` acknowledges again: send at once what it has missed."""
        if place in self._leaderless:
            self._leaderless.discard(place)
            self._resend(time.monotonic() - LATE_S, place)

    @property
    def _patience_s(self) -> float:
        return ELECTION_S if self._client.is_clustered else STORE_TIMEOUT_S

    def forbid(self, subject: str) -> None:
        """The broker's permissions do not let this user publish there: it never will be acknowledged."""
        for ticket in [ticket for ticket, pending in self._pending.items() if pending.subject.lower() == subject.lower()]:
            pending = self._pending.pop(ticket)
            pending.end(0, PermissionDenied(f"the broker's permissions forbid publishing to {pending.subject}"))

    def reconnected(self) -> None:
        """Send all of it again: what the connection had before may be lost."""
        self._stalls.clear()
        self._leaderless.clear()
        self._resend(time.monotonic())

    def end_all(self, error: StreamflowError) -> None:
        for pending in [*self._pending.values()]:
            pending.end(0, error)
        self._pending.clear()

    async def _sweep(self) -> None:
        """Re-send what got no answer, give up on what got none for too long. One timer for all, none per publish."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self._look()
            except Exception:  # without this task no lost publish would ever end
                log.exception("publishes without an answer were not looked at")

    async def _look(self) -> None:
        now = time.monotonic()
        patience_s = self._patience_s
        late = [ticket for ticket, pending in self._pending.items() if now - pending.since > patience_s]
        for ticket in late:
            pending = self._pending.pop(ticket)
            pending.end(0, Unavailable(f"the broker did not acknowledge {pending.subject} within {patience_s:g} s"))
        if self._client.is_connected:
            self._resend(now - RESEND_S)
            await self._attend_stalled(now)

    def _resend(self, sent_before: float, place: str = "") -> None:
        for ticket, pending in [*self._pending.items()]:
            if pending.sent < sent_before and (not place or place_of(pending.subject) == place):
                self._send_again(ticket, pending)

    def _send_again(self, ticket: bytes, pending: _Pending) -> None:
        pending.sent = time.monotonic()
        try:
            self._client.send(pending.subject, pending.payload, f"{self.inbox}.{ticket.decode()}", pending.header)
        except StreamflowError as error:
            del self._pending[ticket]
            pending.end(0, error)

    async def _attend_stalled(self, now: float) -> None:
        """Streams that acknowledge nothing. In a cluster such a one may only be without a leader: try it with its oldest publish until it
        acknowledges that, or a new one."""
        waiting = ((ticket, pending.subject) for ticket, pending in self._pending.items())
        suspects = self._stalls.suspects(waiting, now)
        if not self._client.is_clustered:
            await self._refuse_stalled(suspects)
            return
        for place, ticket in suspects.items():
            if now - self._pending[ticket].since > DOUBT_S:
                self._doubt(place)
        self._leaderless |= suspects.keys()
        self._try_oldest(self._leaderless)

    async def _refuse_stalled(self, suspects: dict[str, bytes]) -> None:
        """Give up, as on a full queue, what goes to a stream that acknowledges nothing though the broker answers."""
        if not suspects or not await self._answers():
            return
        places = {place for place, ticket in suspects.items() if ticket in self._pending}
        for place in places:
            log.error("the broker acknowledges nothing on %s.>: its disk may be full, or was and it needs a restart", place)
            self._stalls.add(place, time.monotonic())
        for ticket in [ticket for ticket, pending in self._pending.items() if place_of(pending.subject) in places]:
            pending = self._pending.pop(ticket)
            pending.end(0, _stalled(pending.subject))

    async def _answers(self) -> bool:
        """Whether the broker has read everything sent so far: its answers to that are here too."""
        try:
            async with asyncio.timeout(PING_S):
                await self._client.flush()
        except (TimeoutError, NatsError):
            return False
        return bool(self._client.is_connected)


def _stalled(subject: str) -> Overloaded:
    return Overloaded(f"the broker stores nothing on {place_of(subject)}.> at the moment: its disk may be full")


def _sequence(payload: bytes) -> int:
    """`seq` of a publish-ack, without building the whole object."""
    found = _SEQ.search(payload)
    return int(found.group(1)) if found else 0
