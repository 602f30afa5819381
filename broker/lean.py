"""nats-py with a shorter way for messages: one pass over the bytes in, synchronous sinks, one write per loop turn out.

nats-py runs a regular expression, a header parse, a queue and a task per message: 25 us of CPU in a gateway where 5 are enough
(docs/decisions/0003-nats-client.md has the figures). Connecting, TLS, authentication, reconnecting and re-subscribing stay nats-py's own.
This is the only file that knows nats-py's private names; tests/integration/broker/test_bus.py fails when a release moves them.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

# nats-py imports aiohttp when it is there, only for ws:// broker URLs: 8 MB and 80 ms in every process that we do not pay.
_hidden = "aiohttp" not in sys.modules
if _hidden:
    sys.modules["aiohttp"] = None  # type: ignore[assignment]

from nats.aio.client import Client  # noqa: E402
from nats.errors import ConnectionReconnectingError, FlushTimeoutError, ProtocolError  # noqa: E402
from nats.errors import Error as NatsError  # noqa: E402
from nats.protocol.parser import Parser  # noqa: E402

if _hidden:
    del sys.modules["aiohttp"]

from .errors import TooLarge, Unavailable  # noqa: E402

log = logging.getLogger(__name__)

# subject, reply subject, raw header block or None, payload
Sink = Callable[[bytes, bytes, bytes | None, bytes], None]

READ_BYTES = 1 << 18
MAX_LINE_BYTES = 4096  # nats-server's max_control_line
LAZY_S = 0.002
FLUSH_S = 10.0
CLOSE_S = 1.0
PART_S = 1.0
_CRLF = b"\r\n"
_MSG, _HMSG = ord("M"), ord("H")


class LeanParser(Parser):
    """Splits the incoming bytes into messages and control lines. A message that arrives in pieces is joined once, when it is whole."""

    def __init__(self, client: LeanClient) -> None:
        super().__init__(client)
        self.reset()

    def reset(self) -> None:
        super().reset()
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = 0

    async def parse(self, data: bytes = b"") -> None:
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._pieces)
            self._pieces.clear()
        rest = await self._split(data)
        if rest < len(data):
            self._pieces.append(data[rest:])
            self._have = len(data) - rest

    async def _split(self, data: bytes) -> int:
        """Handle every whole message in `data`; return where the first incomplete one starts."""
        position, size = 0, len(data)
        self._need = 0
        sinks = self.nc.sinks
        while (end := data.find(_CRLF, position)) >= 0:
            kind = data[position]
            if kind != _MSG and kind != _HMSG:
                await self._control(data[position : end + 2])
                position = end + 2
                continue
            words = data[position:end].split(b" ")
            start, stop = end + 2, end + 2 + int(words[-1])
            if stop + 2 > size:
                self._need = stop + 2 - position
                return position
            body = start + int(words[-2]) if kind == _HMSG else start
            reply = words[3] if len(words) == (6 if kind == _HMSG else 5) else b""
            sink = sinks.get(int(words[2]))
            header = data[start:body] if kind == _HMSG else None
            if sink is not None:
                try:
                    sink(words[1], reply, header, data[body:stop])
                except Exception:  # it would end this loop, on a connection that looks alive
                    log.exception("a message on %s was not handled", words[1].decode(errors="replace"))
            else:
                await self.nc._process_msg(int(words[2]), words[1], reply, data[body:stop], header)
            position = stop + 2
        return position

    async def _control(self, line: bytes) -> None:
        """PING, PONG, INFO, +OK and -ERR: rare, so left to nats-py's own parser."""
        if line[:4].upper() == b"PING":
            await self.nc._process_ping()
        elif line[:4].upper() == b"PONG":
            await self.nc._process_pong()
        else:
            await super().parse(line)
            if self.buf:
                self.buf.clear()
                raise ProtocolError("nats: unknown protocol")


class LeanClient(Client):
    """A nats-py client whose `listen` and `send` stay off the slow path. Not thread-safe: one loop only."""

    def __init__(self) -> None:
        super().__init__()
        self.sinks: dict[int, Sink] = {}
        self._ps = LeanParser(self)
        self._write_due = False
        self._lazy_due = False

    def identify(self, public: str) -> None:
        """The public nkey to connect with; `signature_cb` of `connect` signs for it."""
        self._public_nkey = public

    @property
    def server_id(self) -> str:
        """Of the server that is connected now: what its monitoring calls itself."""
        return str(self._server_info.get("server_id", ""))

    @property
    def server_place(self) -> str:
        """Its host:port."""
        return str(self._current_server.uri.netloc) if self._current_server is not None else ""

    async def leave_server(self) -> None:
        """Go to another server, where there is one: this one is cut off from its cluster, or frozen."""
        if len(self.servers) > 1:
            await self.force_reconnect()

    async def part_from_server(self) -> None:
        """Go to another server, where there is one: this one will end soon (lame duck mode).

        What it has on its way to us is taken first: a delivery that is lost on a closed connection comes again only after `ack_wait`, an
        answer only when it is asked for. What nobody hears is held back where it comes from.
        """
        if len(self.servers) < 2 or not self.is_connected:
            return
        try:
            for number in [*self._subs]:
                await self._send_unsubscribe(number)
            await self.flush(PART_S)
        except (OSError, NatsError) as error:
            log.debug("not parted in good order: %s", error)
        await self.force_reconnect()

    @property
    def cluster(self) -> str:
        """Name of the cluster that the server belongs to, "" for one that is alone."""
        return str(self._server_info.get("cluster", ""))

    @property
    def is_clustered(self) -> bool:
        """Whether that server is one of several."""
        return bool(self.cluster)

    async def listen(self, subject: str, sink: Sink, queue: str = "") -> Any:
        """Subscribe; `sink` is called in the read loop and must neither block nor raise. Survives reconnects."""
        subscription = await self.subscribe(subject, queue=queue, cb=_unused)
        self.sinks[subscription._id] = sink
        return subscription

    async def unlisten(self, subscription: Any) -> None:
        """Unsubscribe, handing over what the broker had sent until then."""
        try:
            if self.is_connected:
                await self._send_unsubscribe(subscription._id)
                await self.flush()
        finally:  # else a reconnect would subscribe anew to what nobody hears
            self.sinks.pop(subscription._id, None)
            self._remove_sub(subscription._id)

    async def flush(self, timeout: float = FLUSH_S) -> None:
        """Return when the broker has read everything sent so far. Raises `FlushTimeoutError`, `ConnectionReconnectingError`.

        nats-py's own cancels what the next PONG is to resolve when it is given up, which then ends the read loop.
        """
        if not self.is_connected:
            raise ConnectionReconnectingError
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        await self._send_ping(answered)
        if not (await asyncio.wait((answered,), timeout=timeout))[0]:
            raise FlushTimeoutError

    def send(self, subject: str, payload: bytes, reply: str = "", header: bytes | None = None, *, lazy: bool = False) -> None:
        """Queue one message for this loop turn's write; a `lazy` one goes with the next write, within `LAZY_S` (an ack: nobody waits).

        Raises `TooLarge` and `Unavailable` before a byte leaves.

        The broker counts header and payload against `max_payload`, and subjects against its longest line, and closes the connection for
        good when one is exceeded, so the check is here and not on the wire.
        """
        total = len(payload) + (len(header) if header else 0)
        if total > self._max_payload:
            raise TooLarge(f"message of {total} bytes, the broker takes {self._max_payload}")
        if header is None:
            line = f"PUB {subject} {reply} {total}\r\n".encode()
            message = b"".join((line, payload, _CRLF))
        else:
            line = f"HPUB {subject} {reply} {len(header)} {total}\r\n".encode()
            message = b"".join((line, header, payload, _CRLF))
        if len(line) > MAX_LINE_BYTES:
            raise TooLarge(f"subject of {len(subject)} characters, the broker takes lines of {MAX_LINE_BYTES} bytes")
        self._pending.append(message)
        self._pending_data_size += total + len(line) + 2
        if self._write_due:
            return
        if not self.is_connected:
            self._refuse_when_full()
            return
        if lazy:
            if not self._lazy_due:
                self._lazy_due = True
                asyncio.get_running_loop().call_later(LAZY_S, self._write)
            return
        self._write_due = True
        asyncio.get_running_loop().call_soon(self._write)

    def _refuse_when_full(self) -> None:
        if self.is_closed or self._pending_data_size > self._max_pending_size:
            self._pending_data_size -= len(self._pending.pop())
            raise Unavailable("the broker is unreachable and the send buffer is full")

    def _write(self) -> None:
        self._write_due = self._lazy_due = False
        if self._pending and self.is_connected and self._transport is not None:
            lines, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.writelines(lines)

    async def _attempt_reconnect(self) -> None:
        """nats-py waits until the old connection is closed, which is when everything written is sent: a frozen server takes nothing."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            asyncio.get_running_loop().call_later(CLOSE_S, writer.transport.abort)
        await super()._attempt_reconnect()

    async def _read_loop(self) -> None:
        """nats-py's loop with a larger read, since a tensor message is many 32 KiB reads otherwise."""
        reader: Any = getattr(self._transport, "_io_reader")  # noqa: B009  (a private name of nats-py's TCP transport)
        reader._limit = max(reader._limit, 2 * READ_BYTES)
        while not (self.is_closed or self.is_reconnecting):
            try:
                data = await reader.read(READ_BYTES)
                if not data:
                    await self._process_op_err(ConnectionResetError("the broker closed the connection"))
                    return
                await self._ps.parse(data)
            except (OSError, NatsError, ValueError, IndexError) as error:
                await self._process_op_err(error)
                return


async def _unused(_message: object) -> None:
    """nats-py wants a callback; messages of a listened subject never reach it."""
