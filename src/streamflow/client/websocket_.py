"""Requests over WebSocket: one socket for each post(), Jina's messages in its `bytes` sub-protocol, which every gateway speaks.

Streaming endpoints are asked in the `json` sub-protocol of streamflow's gateways, one socket for each stream.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import NoReturn

import aiohttp
import orjson
from google.protobuf.message import DecodeError

from streamflow.broker.envelope import JSON
from streamflow.broker.errors import OK, StreamflowError
from streamflow.gateway.proto import shallow_pb2 as jina

from .address import Address
from .errors import BadArguments, RequestTimeout, ServerUnavailable
from .headers import timeout_of
from .json_wire import json_object, response
from .plain import plain, to_json
from .results import DataRequest
from .stream_link import StreamLink
from .transport import BROKER_ONLY, CONNECT_S, Ask, Link, Metadata, Outgoing
from .wires import JinaWire, status_of

_BYTES, _JSON = "bytes", "json"
_END = b"\x01"
_CLOSED = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)
_NORMAL = (1000, None)


class WebSocketTransport:
    """See `transport.Transport`."""

    def __init__(self, address: Address, proxy: bool = False) -> None:
        self.address = address
        self._base = f"ws{'s' if address.tls else ''}://{address.target}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=address.files.context() if address.files else True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            trust_env=proxy,
        )
        self._sockets: weakref.WeakSet[aiohttp.ClientWebSocketResponse] = weakref.WeakSet()

    async def link(self, ask: Ask, single: bool) -> Link:
        return _SocketLink(self, ask)

    async def stream(self, ask: Ask, request: Outgoing) -> AsyncGenerator[DataRequest, None]:
        deadline = None if ask.timeout_s is None else time.monotonic() + ask.timeout_s
        socket = await self.connect("/", _headers(ask), _JSON)
        try:
            if socket.protocol != _JSON:
                raise StreamflowError(f"{self.address}: this server does not stream over WebSocket: use gRPC or HTTP for stream_doc()")
            await socket.send_bytes(_question(ask, request))
            is_last = False
            while not is_last:
                answer = await self._next(socket, ask, deadline)
                values = json_object(answer)
                # A gateway without streams gives one answer, which does not say whether it is the last.
                is_last = values.get("final", True)
                yield response(500 if "code" in values else 200, answer, ask, request.request_id)
        finally:
            await socket.close()

    async def _next(self, socket: aiohttp.ClientWebSocketResponse, ask: Ask, deadline: float | None) -> bytes:
        try:
            message = await socket.receive(None if deadline is None else max(0.001, deadline - time.monotonic()))
        except TimeoutError:
            raise RequestTimeout(f"{self.address}: the stream did not end within {ask.timeout_s} s") from None
        if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            raise ServerUnavailable(f"{self.address}: the stream ended before its last part: socket closed with {socket.close_code}")
        return message.data if isinstance(message.data, bytes) else str(message.data).encode()

    async def ready(self, timeout_s: float, metadata: Metadata) -> None:
        async with asyncio.timeout(timeout_s):
            socket = await self.connect("/dry_run", metadata)
            try:
                await socket.send_bytes(b"")
                message = await socket.receive()
            finally:
                await socket.close()
        status = jina.Status.FromString(message.data) if message.type is aiohttp.WSMsgType.BINARY else None
        if status is None or status_of(status) is not OK:
            raise ServerUnavailable(f"{self.address}: {status.description if status else 'the socket was closed'}")

    async def connect(self, path: str, metadata: Metadata, protocol: str = _BYTES) -> aiohttp.ClientWebSocketResponse:
        """A socket at `path`. Raises `ServerUnavailable`."""
        try:
            url = self._base + path
            socket = await self._session.ws_connect(url, protocols=(protocol,), headers=dict(metadata), max_msg_size=0)
        except (aiohttp.ClientError, OSError) as error:
            raise ServerUnavailable(f"{self.address}: {error or type(error).__name__}") from error
        self._sockets.add(socket)
        return socket

    async def result(self, ask: Ask, request_id: str, wait: bool) -> NoReturn:
        raise BadArguments(f"{self.address}: results are asked for over grpc://, http:// or nats://")

    async def operate(self, flow: str) -> NoReturn:
        raise BadArguments(f"{self.address}: {BROKER_ONLY}")

    def jobs(self, metadata: Metadata) -> NoReturn:
        raise BadArguments(f"{self.address}: jobs are asked for over grpc://, http:// or nats://")

    async def close(self) -> None:
        # A post() whose iterator was dropped may still hold one: its loop ends before its own clean-up runs.
        await asyncio.gather(*(socket.close() for socket in self._sockets), return_exceptions=True)
        await self._session.close()


class _SocketLink(StreamLink):
    def __init__(self, transport: WebSocketTransport, ask: Ask) -> None:
        super().__init__()
        self._transport, self._ask = transport, ask
        self._wire = JinaWire(ask)
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def open(self) -> None:
        self._socket = await self._transport.connect("/", (*self._ask.metadata, *self._ask.trace.items()))

    async def encode(self, request: Outgoing) -> None:
        request.encoded(self._wire.content_type)

    async def write(self, request: Outgoing) -> None:
        assert self._socket is not None
        message = self._wire.pack(request).SerializeToString()
        request.gone()
        with suppress(aiohttp.ClientError, ConnectionError):
            await self._socket.send_bytes(message)

    async def receive(self) -> DataRequest | None:
        assert self._socket is not None
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            return self._answer(message.data)
        if message.type in _CLOSED and self._socket.close_code in _NORMAL:
            return None
        reason = message.extra if message.type is aiohttp.WSMsgType.CLOSE else message.data
        raise ServerUnavailable(f"{self._transport.address}: closed with {self._socket.close_code}: {reason or 'no reason given'}")

    async def finish(self) -> None:
        assert self._socket is not None
        await self._socket.send_bytes(_END)

    async def abort(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    def _answer(self, data: bytes) -> DataRequest:
        try:
            return self._wire.read(data)
        except DecodeError as error:
            raise StreamflowError(f"{self._transport.address}: an answer that is no DataRequestProto: {error}") from error


def _headers(ask: Ask) -> Metadata:
    return (*ask.metadata, *ask.trace.items(), *timeout_of(ask))


def _question(ask: Ask, request: Outgoing) -> bytes:
    """The message that asks for a stream."""
    header = orjson.dumps({"requestId": request.request_id, "execEndpoint": ask.endpoint, "targetExecutor": ask.target_executor or None})
    documents = request.encoded(JSON)
    return b'{"header":%b,"stream":true,"parameters":%b,"data":%b}' % (header, to_json(plain(ask.parameters)), documents)
