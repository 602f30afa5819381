"""WebSocket: one socket, many requests, answers as they are ready.

Sub-protocols: `json` (the default; frames are requests as HTTP takes them, with `execEndpoint`) and `bytes` (frames are serialized
`jina.DataRequestProto`s). The input ends with `{}` or the byte 1 (or 0): what is open is answered, then the socket closes. An error of a
request is an answer; only with `bytes`, whose clients expect it, do UNAVAILABLE and DEADLINE_EXCEEDED end the socket, with 1011, after the
other answers. `/dry_run` answers any message with the readiness.

A `json` message with `"stream": true`, or to a streaming endpoint without `"stream": false`, is answered once per document as they come,
with `position` counting from 0 and `"final": false`; then comes an answer without documents and with `"final": true`, which has `code` and
`detail` when something failed. Requests that follow are answered in between. `"keep": <seconds>` and `"prefer": "respond-async"` are what
the HTTP headers are (keeping.py); an answer that is still to come has `"pending": true`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

import orjson

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import Code, Status, StreamflowError
from streamflow.broker.settings import GatewaySettings

from .answers import print_json, status_json
from .desk import Desk, refused
from .dispatch import Call
from .http_io import Receive, Scope, Send
from .jina_wire import call_of, data_answer, read, status_message
from .json_wire import read_wishes, socket_call, stream_wanted
from .peek import parse
from .proto import shallow_pb2 as pb
from .status import close_reason, outcome
from .window import Window

logger = logging.getLogger(__name__)
BYTES = "bytes"
PLAIN = "json"
LINGER_S = 0.25
_NORMAL, _GOING_AWAY, _FAILED = 1000, 1001, 1011
_JINA_END = b"\x00"  # its client sends `bytes(True)`, which is one zero byte
_ENDS = (b"{}", b"\x01", _JINA_END)
_LONGEST_END = 16  # bytes; "{}" may be written with white space


@dataclass(slots=True, eq=False)
class Socket:
    """One accepted connection. `stop` ends its reading; what is in flight is still answered before it closes."""

    path: str
    headers: Mapping[bytes, bytes]
    protocol: str
    receive: Receive
    send: Send
    gone: bool = False
    end: bytes = b""  # the frame that ended the input
    close_code: int = _NORMAL
    close_text: str = ""
    reader: asyncio.Task[None] | None = field(default=None)

    async def next_frame(self) -> bytes | None:
        """The next message, None when the client has left."""
        message = await self.receive()
        if message["type"] == "websocket.disconnect":
            self.gone = True
            return None
        text: str | None = message.get("text")
        return text.encode() if text is not None else message.get("bytes") or b""

    async def write(self, body: bytes) -> None:
        if self.protocol == BYTES:
            await self.send({"type": "websocket.send", "bytes": body})
        else:
            await self.send({"type": "websocket.send", "text": body.decode("utf-8", "replace")})

    def stop(self, code: int, text: str) -> None:
        if self.close_code == _NORMAL:
            self.close_code, self.close_text = code, text
        if self.reader is not None:
            self.reader.cancel()

    async def linger(self) -> None:
        """Give the client time to leave first: Jina's forgets what a failed answer told it when the socket closes before it has raised."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self.gone:
                    await self.next_frame()

    async def close(self) -> None:
        if not self.gone:
            await self.send({"type": "websocket.close", "code": self.close_code, "reason": close_reason(self.close_text)})


class SocketApp:
    """The ASGI callable for `websocket` scopes."""

    def __init__(self, desk: Desk, settings: GatewaySettings) -> None:
        self._desk = desk
        self._prefetch = settings.prefetch
        self._sockets: set[Socket] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()

    async def drain(self) -> None:
        """Stop reading from every socket; return once all have their answers and are closed."""
        for socket in list(self._sockets):
            socket.stop(_GOING_AWAY, "the gateway is shutting down")
        await self._none_open.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        chosen = next((name for name in scope.get("subprotocols") or () if name in (BYTES, PLAIN)), None)
        await send({"type": "websocket.accept", "subprotocol": chosen})
        socket = Socket(scope["path"], dict(scope["headers"]), chosen or PLAIN, receive, send)
        self._sockets.add(socket)
        self._none_open.clear()
        try:
            await (self._dry_run(socket) if socket.path == "/dry_run" else self._serve(socket))
        except OSError:
            return  # the client left while an answer was written
        except Exception:
            logger.exception("a WebSocket failed inside the gateway")
            socket.stop(_FAILED, "the gateway failed on this socket")
            await socket.close()
        finally:
            self._sockets.discard(socket)
            if not self._sockets:
                self._none_open.set()

    async def _serve(self, socket: Socket) -> None:
        window: Window[float] = Window(self._prefetch)
        socket.reader = asyncio.create_task(self._read(socket, window))
        told_failure = False
        try:
            async for started, envelope in window:
                if not _ends(socket, envelope):
                    await socket.write(_print(socket, envelope, started))
                    told_failure |= envelope.status.code is not Code.OK
            if told_failure and socket.end == _JINA_END:
                await socket.linger()
            await socket.close()
        finally:
            window.cancel()
            socket.reader.cancel()
            await asyncio.gather(socket.reader, return_exceptions=True)

    async def _read(self, socket: Socket, window: Window[float]) -> None:
        """Take requests until the input ends, the client leaves or the socket is stopped."""
        try:
            while (frame := await socket.next_frame()) is not None and not _is_end(frame):
                await window.room()
                self._take(socket, frame, window)
            socket.end = frame or b""
            if socket.gone:
                window.cancel()
        finally:
            window.close()

    def _take(self, socket: Socket, frame: bytes, window: Window[float]) -> None:
        started = time.time()
        try:
            call = self._call(socket, frame)
            streams = socket.protocol == PLAIN and self._streams(call, frame)
        except StreamflowError as error:
            window.add(started, refused(error, client_id=_id_of(socket, frame)))
            return
        if streams:
            window.add(started, asyncio.create_task(self._parts(socket, call, started)))
        else:
            window.add(started, self._desk.send(call))

    def _streams(self, call: Call, frame: bytes) -> bool:
        wanted = stream_wanted(frame)
        if wanted is not None:
            return wanted
        endpoint = self._desk.view.endpoints.get(call.endpoint)
        return endpoint is not None and endpoint.streaming

    def _call(self, socket: Socket, frame: bytes) -> Call:
        view = self._desk.view
        if socket.protocol == PLAIN:
            return socket_call(socket.path, socket.headers, frame, view)
        call = call_of(read(pb.DataRequest, frame), view)
        read_wishes(call, socket.headers)
        return call

    async def _parts(self, socket: Socket, call: Call, started: float) -> Envelope:
        """Write all parts of a stream but the last, which is returned."""
        async with aclosing(self._desk.stream(call)) as parts:
            async for part in parts:
                if part.final or part.status.code is not Code.OK:
                    return part
                await socket.write(print_json(part, started))
        return refused(Status(Code.INTERNAL, "the stream ended without a final part"), call)

    async def _dry_run(self, socket: Socket) -> None:
        while (frame := await socket.next_frame()) is not None and not _is_end(frame):
            readiness = self._desk.view.readiness()
            if socket.protocol == BYTES:
                await socket.write(status_message(readiness).SerializeToString())
            else:
                await socket.write(orjson.dumps(status_json(readiness)))
        await socket.close()


def _id_of(socket: Socket, frame: bytes) -> str:
    """By which whoever sent it knows the answer; "" where nothing of it can be read."""
    try:
        return str(read(pb.DataRequest, frame).header.request_id) if socket.protocol == BYTES else parse(frame).request_id
    except StreamflowError:
        return ""


def _is_end(frame: bytes) -> bool:
    return len(frame) <= _LONGEST_END and b"".join(frame.split()) in _ENDS


def _ends(socket: Socket, envelope: Envelope) -> bool:
    """Whether this answer is told by closing the socket; the first such one stops the reading."""
    said = outcome(envelope.status.code)
    if socket.protocol != BYTES or not said.close:
        return False
    socket.stop(said.close, envelope.status.description)
    return True


def _print(socket: Socket, envelope: Envelope, started: float) -> bytes:
    return data_answer(envelope, started) if socket.protocol == BYTES else print_json(envelope, started)
