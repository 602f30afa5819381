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
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Self

from nats.errors import Error as NatsError

from .acks import Acks, Stored
from .errors import NotFound, RuntimeFailToStart, StreamflowError, Unavailable
from .lean import LeanClient, Sink
from .nkeys import UserKey, read_key
from .questions import Questions
from .reach import PING, Reach
from .redact import shown_url
from .refusals import error_of
from .servers import Servers
from .settings import BrokerSettings
from .versions import require_version

log = logging.getLogger(__name__)

Callback = Callable[[], None]
Found = tuple[int, bytes] | None  # a message's sequence in its stream, and its payload

LEAVE_S = 0.5  # a server in lame duck mode ends its JetStream after one second
REFUSED_S = 5.0
SEND_BUFFER_BYTES = 64 << 20
_SEQUENCE_HEADER = re.compile(rb"Nats-Sequence: (\d+)")
_FORBIDDEN = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)


class Bus:
    """One connection. Not thread-safe: all calls from the loop that connected it."""

    def __init__(self, client: LeanClient, settings: BrokerSettings, key: UserKey | None = None) -> None:
        self._client = client
        self._settings = settings
        self._key = key
        self._refusal = ""
        self._acks = Acks(client, self.new_inbox(), self.doubt)
        self._questions = Questions(client, self.new_inbox())
        self._wait_s = random.uniform(0.1, 0.5)  # between two tries of one server
        self._servers = Servers(self._wait_s)
        self._reach = Reach(client, self.new_inbox(), len(_urls(settings)), client.leave_server)
        self._is_admitted = False
        self._leaving: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._refused_since = 0.0
        self._on_reconnect: list[Callback] = []
        self._on_disconnect: list[Callback] = []
        self._on_closed: list[Callback] = []
        self.forbidden: set[str] = set()  # subjects that the broker did not let this user publish to

    @classmethod
    async def connect(cls, settings: BrokerSettings, name: str) -> Self:
        """Connect, waiting up to `settings.connect_wait_s`. Raises `Unavailable` naming the URL, `RuntimeFailToStart` for a server that is
        too old.

        Reconnecting never ends (nats-py's default gives up after 60 tries), with a wait of its own for every process so that a broker
        restart does not meet all of them at once. nats-py's error callback ends the read loop when it raises, so ours only logs.
        """
        key = read_key(settings.broker_credentials) if settings.broker_credentials else None
        client = LeanClient()
        bus = cls(client, settings, key)
        try:
            async with asyncio.timeout(settings.connect_wait_s):
                await client.connect(**bus._options(name))
        except (TimeoutError, OSError, NatsError) as error:
            reason = _reason(client.last_error or error)
            await client.close()
            if bus._refusal:
                raise Unavailable(f"the broker at {shown_url(settings.broker_url)}: {bus._refusal}") from error
            hint = "start one with `streamflow broker`, or name it with --broker"
            raise Unavailable(f"no broker at {shown_url(settings.broker_url)}: {reason} ({hint})") from error
        try:
            require_version(bus.server_version, f"the broker at {shown_url(settings.broker_url)}")
        except RuntimeFailToStart:
            await client.close()
            raise
        await client.listen(bus._acks.inbox + ".*", bus._acks.heard)
        await client.listen(bus._questions.inbox + ".*", bus._questions.heard)
        await client.listen(bus._reach.inbox + ".*", bus._reach.heard)
        bus._acks.start()
        bus._reach.start()
        bus._is_admitted = True
        return bus

    def _options(self, name: str) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {
            "servers": _urls(settings),
            "name": name,
            "allow_reconnect": True,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": self._wait_s,
            "reconnect_to_server_handler": self._servers.choose,
            "connect_timeout": 2,
            "ping_interval": 2,  # three missed ones: a connection that went silent is given up after 6 s
            "max_outstanding_pings": 2,
            "pending_size": SEND_BUFFER_BYTES,
            "error_cb": self._heard_error,
            "disconnected_cb": self._disconnected,
            "lame_duck_mode_cb": self._leave,
            "reconnected_cb": self._reconnected,
            "closed_cb": self._closed,
        }
        if self._key is not None:
            self._client.identify(self._key.public)
            options |= {"signature_cb": self._key.sign, "inbox_prefix": self._key.inbox_prefix}
            if self._key.jwt:
                options["user_jwt_cb"] = self._key.jwt.encode
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

    @property
    def is_clustered(self) -> bool:
        """Whether the server is one of several."""
        return self._client.is_clustered

    @property
    def server_id(self) -> str:
        return self._client.server_id

    def doubt(self, what: str) -> None:
        """Nothing has come from `what`, a stream or consumer, for `reach.DOUBT_S`: in a cluster another server may reach it."""
        self._reach.doubt(what)

    def on_reconnect(self, callback: Callback) -> None:
        self._on_reconnect.append(callback)

    def off_reconnect(self, callback: Callback) -> None:
        """Forget `callback`: whoever comes and goes while the connection stays must not be kept by it."""
        if callback in self._on_reconnect:
            self._on_reconnect.remove(callback)

    def on_disconnect(self, callback: Callback) -> None:
        self._on_disconnect.append(callback)

    def on_closed(self, callback: Callback) -> None:
        """`callback` runs when the connection is gone for good without `close()` (authorization revoked, protocol error): end the
        process."""
        self._on_closed.append(callback)

    def new_inbox(self) -> str:
        """A subject of this connection's own. A user with a key has inboxes that no other user may read."""
        if self._key is None:
            return str(self._client.new_inbox())
        return f"{self._key.inbox_prefix}.{secrets.token_hex(11)}"

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
            ((header, answer),) = await self._questions.ask(((subject, payload),), timeout_s)
        except TimeoutError as error:
            raise Unavailable(f"no answer on {subject} within {timeout_s:g} s") from error
        if (header or b"")[9:12] == b"503":
            raise Unavailable(f"nobody answers on {subject}")
        return answer

    async def flush(self) -> None:
        """Return when the broker has seen everything sent so far. Raises `Unavailable`."""
        try:
            await self._client.flush()
        except (TimeoutError, NatsError) as error:
            raise Unavailable("the broker does not answer") from error

    # JetStream

    def store(self, subject: str, payload: bytes, message_id: str, done: Stored, *, keep_s: float = 0.0) -> None:
        """Publish into the stream that takes `subject`; `done(sequence, error)` is called once, when the broker has it or never will.

        A publish without an answer is sent again, with the same message id, after a reconnect and every `RESEND_S`; the stream drops the
        second one. `keep_s`: delete it after so many seconds (ADR-43; the stream must allow it).
        Errors: `Overloaded` (stream full), `TooLarge`, `Unavailable` (no stream, or no answer for `STORE_TIMEOUT_S`).
        """
        ttl = _ttl(keep_s) if keep_s else b""
        self._acks.store(subject, payload, b"NATS/1.0\r\nNats-Msg-Id: %b\r\n%b\r\n" % (message_id.encode(), ttl), done)

    def store_first(self, subject: str, payload: bytes, done: Stored, *, keep_s: float = 0.0) -> None:
        """`store` if nothing is stored on `subject` yet (expected last sequence 0, ADR-19), else `AlreadyExists`.

        Holds for as long as the stream keeps messages, not only for its deduplication window. Sent again after a lost acknowledgement it
        meets itself: what is stored under a name is the same for every writer, or the first writer wins. `keep_s`: see `store`.
        """
        ttl = _ttl(keep_s) if keep_s else b""
        self._acks.store(subject, payload, b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n%b\r\n" % ttl, done)

    def schedule(self, subject: str, target: str, payload: bytes, message_id: str, delay_s: float, done: Stored) -> None:
        """`store` that puts the message on `target` in `delay_s` (ADR-51; seen: up to 0.25 s later). It waits on `subject`, in the same
        stream, which must allow schedules, over restarts of everybody."""
        moment = datetime.fromtimestamp(time.time() + delay_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        header = f"NATS/1.0\r\nNats-Msg-Id: {message_id}\r\nNats-Schedule: @at {moment}\r\nNats-Schedule-Target: {target}\r\n\r\n"
        self._acks.store(subject, payload, header.encode(), done)

    async def store_wait(self, subject: str, payload: bytes, message_id: str, *, keep_s: float = 0.0) -> int:
        """`store` for those who wait: the sequence, or the error raised."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.store(subject, payload, message_id, _resolve(future), keep_s=keep_s)
        return await future

    async def store_first_wait(self, subject: str, payload: bytes, *, keep_s: float = 0.0) -> int:
        """`store_first` for those who wait."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.store_first(subject, payload, _resolve(future), keep_s=keep_s)
        return await future

    async def store_together(self, messages: Sequence[tuple[str, bytes]]) -> int:
        """Store several messages (subject, payload) as one, with no others in between: the sequence of the last (ADR-50; the stream must
        allow it). Raises as `store_wait` does; then they may have been stored all the same, or not one of them."""
        batch = b"NATS/1.0\r\nNats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n%b\r\n"
        name = secrets.token_hex(8).encode()
        for number, (subject, payload) in enumerate(messages[:-1], 1):
            self._client.send(subject, payload, "", batch % (name, number, b""))
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._acks.store(*messages[-1], batch % (name, len(messages), b"Nats-Batch-Commit: 1\r\n"), _resolve(future))
        return await future

    async def erase(self, subject: str) -> None:
        """Delete what is stored on `subject`, by a mark in its place that soon goes too (rollup: ADR-9, TTL: ADR-43; the stream must allow
        both). Unlike purging it needs no right on the stream. Raises as `store` does."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._acks.store(subject, b"", b"NATS/1.0\r\nNats-Rollup: sub\r\nNats-TTL: 1s\r\n\r\n", _resolve(future))
        await future

    async def api(self, subject: str, body: dict[str, Any] | None = None, timeout_s: float = 5.0) -> dict[str, Any]:
        """One JetStream API call, e.g. `api("STREAM.INFO.sf_x")`. Raises `NotFound`, `Overloaded`, `Unavailable`, `StreamflowError`."""
        payload = json.dumps(body).encode() if body is not None else b""
        answer: dict[str, Any] = json.loads(await self.request(f"$JS.API.{subject}", payload, timeout_s))
        if "error" in answer:
            raise error_of(answer["error"], subject)
        return answer

    async def consumer(self, stream: str, durable: str) -> dict[str, Any] | None:
        """What JetStream tells of a consumer, None when there is none. Raises `Unavailable`."""
        try:
            return await self.api(f"CONSUMER.INFO.{stream}.{durable}")
        except NotFound:
            return None

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
        from a follower that lags, so the leader is asked instead. How many a stream has is its deployer's setting, which others may not
        share: so in every cluster.
        """
        if self._settings.stream_replicas > 1 or self._client.is_clustered:
            return list(await asyncio.gather(*(self._leader_get(stream, subject) for subject in subjects)))
        questions = [(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"") for subject in subjects]
        try:
            return [_found(stream, *answer) for answer in await self._questions.ask(questions, timeout_s)]
        except TimeoutError as error:
            raise Unavailable(f"no answer from stream {stream}") from error

    async def message(self, stream: str, sequence: int) -> bytes:
        """Payload of the message with this sequence. Raises `NotFound`, `Unavailable`."""
        return self.payload_of(await self.api(f"STREAM.MSG.GET.{stream}", {"seq": sequence}))

    @staticmethod
    def payload_of(answer: dict[str, Any]) -> bytes:
        """What a message holds that the API gave."""
        return base64.b64decode(answer["message"].get("data", ""))

    def tell_api(self, subject: str, body: dict[str, Any]) -> None:
        """An API call whose answer nobody waits for (removing what may as well expire). Raises `Unavailable`."""
        self._client.send(f"$JS.API.{subject}", json.dumps(body).encode(), f"{self._questions.inbox}.0")

    async def _leader_get(self, stream: str, subject: str) -> Found:
        try:
            answer = await self.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except NotFound as error:
            if "no message" in str(error):
                return None
            raise Unavailable(str(error)) from error
        message = answer["message"]
        return message["seq"], base64.b64decode(message.get("data", ""))

    # errors of the connection

    async def _heard_error(self, error: Exception) -> None:
        """nats-py's error callback: must not raise, and says only what a person can use."""
        if "authorization violation" in str(error).lower():
            self._refused_at_the_door()
        elif isinstance(error, OSError | asyncio.TimeoutError):
            log.debug("broker connection: %s", error)
        else:
            log.warning("broker: %s", error or type(error).__name__)
        forbidden = _FORBIDDEN.search(str(error))
        if forbidden is not None:
            self._forbid(forbidden[1])
        elif "Authorization Violation" in str(error):
            self._refused()

    def _refused(self) -> None:
        """The broker does not admit this user (any more). Asking on for ever would look like an outage: end, so that somebody notices."""
        if not self._is_admitted:
            return  # `connect` tells it
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        if now - self._refused_since > REFUSED_S and self._ending is None:
            self._ending = asyncio.create_task(self._client.close(), name="not admitted any more")

    def _refused_at_the_door(self) -> None:
        """The broker knows no such user; it is tried again, since its configuration may be changed meanwhile."""
        if not self._refusal:
            self._refusal = "it refuses this user (authorization violation): set STREAMFLOW_BROKER_CREDENTIALS to a key that it knows"
            log.warning("broker at %s: %s", shown_url(self._settings.broker_url), self._refusal)

    def _forbid(self, subject: str) -> None:
        """The broker's permissions do not let this user publish there: it never will be acknowledged."""
        self.forbidden.add(subject)
        self._acks.forbid(subject)
        if subject.upper() == PING:
            self._reach.forbid()

    # life

    async def _leave(self) -> None:
        """The server will end soon. Called in the read loop, which leaving cancels: so from a task, and not all at once."""
        self._leaving = asyncio.create_task(self._leave_after(random.uniform(0.0, LEAVE_S)), name="leave the server")

    async def _leave_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._client.part_from_server()

    async def _disconnected(self) -> None:
        self._servers.left(self._client.server_place)
        _run_all(self._on_disconnect)

    async def _reconnected(self) -> None:
        self._refused_since = 0.0
        log.info("broker is back at %s", shown_url(self._settings.broker_url))
        self._acks.reconnected()
        self._questions.reconnected()
        _run_all(self._on_reconnect)

    async def _closed(self) -> None:
        _run_all(self._on_closed)

    async def close(self) -> None:
        """Send what is queued, then close. Pending stored publishes are reported as `Unavailable`."""
        self._on_closed.clear()
        self._acks.stop()
        self._reach.stop()
        if self._leaving is not None:
            self._leaving.cancel()
        try:
            if self.connected:
                await self.flush()
        except Unavailable:
            log.warning("closing although the broker does not answer")
        self._acks.end_all(Unavailable("closing"))
        await self._client.close()


def _urls(settings: BrokerSettings) -> list[str]:
    return [url.strip() for url in settings.broker_url.split(",")]


def _ttl(seconds: float) -> bytes:
    return b"Nats-TTL: %ds\r\n" % max(1, round(seconds))


def _resolve(future: asyncio.Future[int]) -> Stored:
    def done(sequence: int, error: StreamflowError | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(sequence)
        else:
            future.set_exception(error)

    return done


def _reason(error: BaseException) -> str:
    """Why there is no connection, without the number and the address that asyncio puts into it."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


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


def _run_all(callbacks: list[Callback]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            log.exception("connection callback failed")
