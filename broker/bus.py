"""The bus: one connection to NATS, with what the roles need of it and nothing else.

Publishing is synchronous (it queues bytes for this loop turn's write); what must be stored is acknowledged through a callback, re-sent
with the same message id after a reconnect, and fails with one of our own errors. JetStream's administration is plain JSON requests (`api`).
Every trap of the client library that `connect` must disarm is listed there.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from .errors import NotFound, Overloaded, StreamflowError, TooLarge, Unavailable
from .lean import LeanClient, Sink
from .settings import BrokerSettings

log = logging.getLogger(__name__)

Callback = Callable[[], None]
Found = tuple[int, bytes] | None  # a message's sequence in its stream, and its payload
Stored = Callable[[int, StreamflowError | None], None]  # sequence in the stream, or 0 and why not

STORE_TIMEOUT_S = 10.0
RESEND_S = 2.0
SEND_BUFFER_BYTES = 64 << 20
_STREAM_FULL = {10077, 10023, 10047}  # maximum messages or bytes exceeded; insufficient resources; account storage exceeded
_SEQUENCE_HEADER = re.compile(rb"Nats-Sequence: (\d+)")
_SEQ = re.compile(rb'"seq":\s*(\d+)')
_TOO_LARGE = {10054}
_NOT_FOUND = {10014, 10037, 10059, 10149}  # consumer, message, stream, consumer of a stream


@dataclass(slots=True)
class _Pending:
    """One stored publish that waits for its publish-ack."""

    subject: str
    payload: bytes
    header: bytes
    done: Stored
    since: float
    sent: float


class Bus:
    """One connection. Not thread-safe: all calls from the loop that connected it."""

    def __init__(self, client: LeanClient, settings: BrokerSettings) -> None:
        self._client = client
        self._settings = settings
        self._pending: dict[bytes, _Pending] = {}
        self._asked: dict[bytes, asyncio.Future[tuple[bytes | None, bytes]]] = {}
        self._tickets = 0
        self._inbox = client.new_inbox()
        self._cut = len(self._inbox) + 1
        self._sweeper: asyncio.Task[None] | None = None
        self._on_reconnect: list[Callback] = []
        self._on_disconnect: list[Callback] = []
        self._on_closed: list[Callback] = []

    @classmethod
    async def connect(cls, settings: BrokerSettings, name: str) -> Self:
        """Connect, waiting up to `settings.connect_wait_s`. Raises `Unavailable` naming the URL.

        Reconnecting never ends (nats-py's default gives up after 60 tries), with a wait of its own for every process so that a broker
        restart does not meet all of them at once. nats-py's error callback ends the read loop when it raises, so ours only logs.
        """
        client = LeanClient()
        bus = cls(client, settings)
        try:
            async with asyncio.timeout(settings.connect_wait_s):
                await client.connect(**bus._options(name))
        except (TimeoutError, OSError, NatsError) as error:
            reason = str(client.last_error or error) or type(error).__name__
            await client.close()
            hint = "start one with `streamflow broker`, or name it with --broker"
            raise Unavailable(f"no broker at {settings.broker_url}: {reason} ({hint})") from error
        await client.listen(bus._inbox + ".*", bus._acknowledged)
        bus._sweeper = asyncio.create_task(bus._sweep(), name="publish-acks")
        return bus

    def _options(self, name: str) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {
            "servers": [url.strip() for url in settings.broker_url.split(",")],
            "name": name,
            "allow_reconnect": True,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": random.uniform(0.1, 0.5),
            "connect_timeout": 2,
            "ping_interval": 5,
            "max_outstanding_pings": 2,
            "pending_size": SEND_BUFFER_BYTES,
            "error_cb": _log_error,
            "disconnected_cb": self._disconnected,
            "reconnected_cb": self._reconnected,
            "closed_cb": self._closed,
        }
        if settings.credentials:
            options["user_credentials"] = settings.credentials
        if settings.tls_ca:
            import ssl

            options["tls"] = ssl.create_default_context(cafile=settings.tls_ca)
        return options

    @property
    def settings(self) -> BrokerSettings:
        return self._settings

    @property
    def connected(self) -> bool:
        return bool(self._client.is_connected)

    @property
    def server_version(self) -> str:
        return str(self._client.connected_server_version)

    def on_reconnect(self, callback: Callback) -> None:
        self._on_reconnect.append(callback)

    def on_disconnect(self, callback: Callback) -> None:
        self._on_disconnect.append(callback)

    def on_closed(self, callback: Callback) -> None:
        """`callback` runs when the connection is gone for good without `close()` (authorization revoked, protocol error): end the
        process."""
        self._on_closed.append(callback)

    def new_inbox(self) -> str:
        return str(self._client.new_inbox())

    # core NATS

    def publish(self, subject: str, payload: bytes, reply: str = "", *, lazy: bool = False) -> None:
        """Send to whoever listens now; `lazy`: with the next write, at most 2 ms later. Raises `TooLarge`, `Unavailable`."""
        self._client.send(subject, payload, reply, lazy=lazy)

    async def listen(self, subject: str, sink: Sink, queue: str = "") -> Any:
        """Call `sink(subject, reply, header, payload)` for every message; the result goes to `unlisten`."""
        return await self._client.listen(subject, sink, queue)

    async def unlisten(self, subscription: Any) -> None:
        await self._client.unlisten(subscription)

    async def request(self, subject: str, payload: bytes = b"", timeout_s: float = 5.0) -> bytes:
        """Ask and wait for one answer. Raises `Unavailable` when nobody listens or answers."""
        try:
            message = await self._client.request(subject, payload, timeout=timeout_s)
        except NoRespondersError as error:
            raise Unavailable(f"nobody answers on {subject}") from error
        except (TimeoutError, NatsError) as error:
            raise Unavailable(f"no answer on {subject} within {timeout_s:g} s") from error
        return bytes(message.data)

    async def flush(self) -> None:
        """Return when the broker has seen everything sent so far. Raises `Unavailable`."""
        try:
            await self._client.flush()
        except (TimeoutError, NatsError) as error:
            raise Unavailable("the broker does not answer") from error

    # JetStream

    def store(self, subject: str, payload: bytes, message_id: str, done: Stored) -> None:
        """Publish into the stream that takes `subject`; `done(sequence, error)` is called once, when the broker has it or never will.

        A publish without an answer is sent again, with the same message id, after a reconnect and every `RESEND_S`; the stream drops the
        second one. Errors: `Overloaded` (stream full), `TooLarge`, `Unavailable` (no stream, or no answer for `STORE_TIMEOUT_S`).
        """
        header = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % message_id.encode()
        self._tickets += 1
        ticket = b"%x" % self._tickets
        now = time.monotonic()
        try:
            self._client.send(subject, payload, f"{self._inbox}.{self._tickets:x}", header)
        except (TooLarge, Unavailable) as error:
            done(0, error)
            return
        self._pending[ticket] = _Pending(subject, payload, header, done, now, now)

    async def store_wait(self, subject: str, payload: bytes, message_id: str) -> int:
        """`store` for those who wait: the sequence, or the error raised."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def done(sequence: int, error: StreamflowError | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(sequence)
                else:
                    future.set_exception(error)

        self.store(subject, payload, message_id, done)
        return await future

    async def api(self, subject: str, body: dict[str, Any] | None = None, timeout_s: float = 5.0) -> dict[str, Any]:
        """One JetStream API call, e.g. `api("STREAM.INFO.sf_x")`. Raises `NotFound`, `Overloaded`, `Unavailable`, `StreamflowError`."""
        payload = json.dumps(body).encode() if body is not None else b""
        answer: dict[str, Any] = json.loads(await self.request(f"$JS.API.{subject}", payload, timeout_s))
        if "error" in answer:
            raise _error_of(answer["error"], subject)
        return answer

    async def direct_get(self, stream: str, subject: str) -> bytes | None:
        """Payload of the last message on `subject`, None when there is none. The stream must allow direct gets (ADR-31)."""
        found = await self.last_message(stream, subject)
        return None if found is None else found[1]

    async def last_message(self, stream: str, subject: str, timeout_s: float = 5.0) -> Found:
        """Sequence and payload of the last message on `subject`, None when there is none. Raises `Unavailable`."""
        return (await self.last_messages(stream, (subject,), timeout_s))[0]

    async def last_messages(self, stream: str, subjects: Sequence[str], timeout_s: float = 5.0) -> list[Found]:
        """`last_message` of several subjects at once.

        With one replica a direct get is answered by the stream's only owner, so it sees every acknowledged publish; with more it may come
        from a follower that lags, so the leader is asked instead.
        """
        if self._settings.stream_replicas > 1:
            return list(await asyncio.gather(*(self._leader_get(stream, subject) for subject in subjects)))
        tickets = [self._ask(f"$JS.API.DIRECT.GET.{stream}.{subject}") for subject in subjects]
        try:
            async with asyncio.timeout(timeout_s):
                return [_found(stream, *(await self._asked[ticket])) for ticket in tickets]
        except TimeoutError as error:
            raise Unavailable(f"no answer from stream {stream}") from error
        finally:
            for ticket in tickets:
                self._asked.pop(ticket, None)

    def _ask(self, subject: str) -> bytes:
        """Send a request whose answer resolves the future in `_asked` under the returned ticket."""
        self._tickets += 1
        ticket = b"%x" % self._tickets
        self._asked[ticket] = asyncio.get_running_loop().create_future()
        self._client.send(subject, b"", f"{self._inbox}.{self._tickets:x}")
        return ticket

    def tell_api(self, subject: str, body: dict[str, Any]) -> None:
        """An API call whose answer nobody waits for (removing what may as well expire). Raises `Unavailable`."""
        self._client.send(f"$JS.API.{subject}", json.dumps(body).encode(), f"{self._inbox}.0")

    async def _leader_get(self, stream: str, subject: str) -> Found:
        try:
            answer = await self.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except NotFound as error:
            if "no message" in str(error):
                return None
            raise Unavailable(str(error)) from error
        message = answer["message"]
        return message["seq"], base64.b64decode(message.get("data", ""))

    # publish-acks

    def _acknowledged(self, subject: bytes, _reply: bytes, header: bytes | None, payload: bytes) -> None:
        ticket = subject[self._cut :]
        pending = self._pending.pop(ticket, None)
        if pending is None:
            asked = self._asked.get(ticket)
            if asked is not None and not asked.done():
                asked.set_result((header, payload))
            return
        if header is not None and b" 503" in header[:14]:
            pending.done(0, Unavailable(f"no stream takes {pending.subject}: its flow is not provisioned on this broker"))
        elif b'"error"' in payload:
            pending.done(0, _error_of(json.loads(payload)["error"], pending.subject))
        else:
            pending.done(_sequence(payload), None)

    async def _sweep(self) -> None:
        """Re-send what got no answer, give up on what got none for too long. One timer for all, none per publish."""
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            late = [ticket for ticket, pending in self._pending.items() if now - pending.since > STORE_TIMEOUT_S]
            for ticket in late:
                pending = self._pending.pop(ticket)
                pending.done(0, Unavailable(f"the broker did not acknowledge {pending.subject} within {STORE_TIMEOUT_S:g} s"))
            if self.connected:
                self._resend(now - RESEND_S)

    def _resend(self, sent_before: float) -> None:
        now = time.monotonic()
        for ticket, pending in self._pending.items():
            if pending.sent < sent_before:
                pending.sent = now
                self._client.send(pending.subject, pending.payload, f"{self._inbox}.{ticket.decode()}", pending.header)

    # life

    async def _disconnected(self) -> None:
        _run_all(self._on_disconnect)

    async def _reconnected(self) -> None:
        log.info("broker is back at %s", self._settings.broker_url)
        self._resend(time.monotonic())
        _run_all(self._on_reconnect)

    async def _closed(self) -> None:
        _run_all(self._on_closed)

    async def close(self) -> None:
        """Send what is queued, then close. Pending stored publishes are reported as `Unavailable`."""
        self._on_closed.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
        try:
            if self.connected:
                await self.flush()
        except Unavailable:
            log.warning("closing although the broker does not answer")
        for pending in [*self._pending.values()]:
            pending.done(0, Unavailable("closing"))
        self._pending.clear()
        await self._client.close()


def _sequence(payload: bytes) -> int:
    """`seq` of a publish-ack, without building the whole object."""
    found = _SEQ.search(payload)
    return int(found.group(1)) if found else 0


def _found(stream: str, header: bytes | None, payload: bytes) -> Found:
    """A direct get's answer; a header block that starts with a status is no message."""
    status = (header or b"")[9:12]
    if status == b"404":
        return None
    if status.isdigit():
        raise Unavailable(f"stream {stream} is not there ({status.decode()})")
    return _header_sequence(header or b""), payload


def _header_sequence(header: bytes) -> int:
    found = _SEQUENCE_HEADER.search(header)
    return int(found.group(1)) if found else 0


def _error_of(error: dict[str, Any], where: str) -> StreamflowError:
    """Our error for a JetStream API error; its `err_code` decides, not the text (ADR-7)."""
    code, text = error.get("err_code", 0), error.get("description", "unknown error")
    if code in _STREAM_FULL:
        return Overloaded(f"the queue is full ({text})")
    if code in _TOO_LARGE:
        return TooLarge(f"message refused by the broker ({text})")
    if code in _NOT_FOUND:
        return NotFound(f"{where}: {text}")
    if error.get("code") == 503:
        return Unavailable(f"{where}: {text}")
    return StreamflowError(f"{where}: {text} ({code})")


def _run_all(callbacks: list[Callback]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            log.exception("connection callback failed")


async def _log_error(error: Exception) -> None:
    """nats-py's error callback: must not raise, and says only what a person can use."""
    if isinstance(error, OSError | asyncio.TimeoutError):
        log.debug("broker connection: %s", error)
    else:
        log.warning("broker: %s", error or type(error).__name__)
