"""One connection to NATS and its life: connecting, moving to another server, ending; and core NATS on it (`bus.py` adds JetStream).

Publishing is synchronous: it queues bytes for this loop turn's write. Every trap of the client library that `connect` must disarm is
listed there.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import secrets
import time
from collections.abc import Callable
from typing import Any, Self

from nats.errors import Error as NatsError

from .acks import Acks
from .errors import RuntimeFailToStart, Unavailable
from .lean import LeanClient, Sink
from .nkeys import UserKey, read_key
from .questions import Questions
from .reach import PING, Reach
from .redact import shown_url
from .servers import Servers
from .settings import BrokerSettings
from .versions import require_version

log = logging.getLogger(__name__)

Callback = Callable[[], None]

LEAVE_S = 0.5  # a server in lame duck mode ends its JetStream after one second
REFUSED_S = 5.0
SEND_BUFFER_BYTES = 64 << 20
_FORBIDDEN = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)


class Connection:
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
        made = cls(client, settings, key)
        try:
            async with asyncio.timeout(settings.connect_wait_s):
                await client.connect(**made._options(name))
        except (TimeoutError, OSError, NatsError) as error:
            reason = _reason(client.last_error or error)
            await client.close()
            if made._refusal:
                raise Unavailable(f"the broker at {shown_url(settings.broker_url)}: {made._refusal}") from error
            hint = "start one with `streamflow broker`, or name it with --broker"
            raise Unavailable(f"no broker at {shown_url(settings.broker_url)}: {reason} ({hint})") from error
        try:
            require_version(made.server_version, f"the broker at {shown_url(settings.broker_url)}")
        except RuntimeFailToStart:
            await client.close()
            raise
        await client.listen(made._acks.inbox + ".*", made._acks.heard)
        await client.listen(made._questions.inbox + ".*", made._questions.heard)
        await client.listen(made._reach.inbox + ".*", made._reach.heard)
        made._acks.start()
        made._reach.start()
        made._is_admitted = True
        return made

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


def _reason(error: BaseException) -> str:
    """Why there is no connection, without the number and the address that asyncio puts into it."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _run_all(callbacks: list[Callback]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            log.exception("connection callback failed")
