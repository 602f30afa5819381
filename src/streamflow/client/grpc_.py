"""Requests over gRPC: one channel for each client, one stream (or unary calls) for each post().

The first call asks which interface the server has: a stream of `streamflow.v1.Streamflow` without a single request ends with OK on a
streamflow gateway and with UNIMPLEMENTED elsewhere; then Jina's interface is used until the connection fails. That costs one round trip per
connection and keeps every request simple, where sending the first request on trial would mean to encode and send it twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, NoReturn

import grpc
from google.protobuf.empty_pb2 import Empty
from grpc import aio

from streamflow.broker.errors import StreamflowError
from streamflow.gateway.proto import shallow_pb2 as jina
from streamflow.gateway.proto import streamflow_pb2 as own
from streamflow.jobs.grpc_ import GrpcJobs

from .address import Address
from .errors import BadArguments, ServerUnavailable
from .grpc_channel import compression, open_channel
from .grpc_errors import error_class
from .results import DataRequest
from .stream_link import StreamLink
from .task_link import TaskLink
from .transport import BROKER_ONLY, Ask, Link, Metadata, Outgoing
from .wires import JinaWire, OwnWire, Wire, status_of

BUNDLE_BYTES = 1 << 17  # of requests in one message, or waiting to be sent
_RESULT = "/streamflow.v1.Streamflow/Result"
_DRY_RUN = "/jina.JinaGatewayDryRunRPC/dry_run"


class GrpcTransport:
    """See `transport.Transport`."""

    def __init__(self, address: Address, options: dict[str, Any], proxy: bool = False) -> None:
        self.address = address
        self.channel = open_channel(address, options, proxy)
        self._own: bool | None = None  # None = not asked yet
        self._asking = asyncio.Lock()

    async def link(self, ask: Ask, single: bool) -> Link:
        return _UnaryLink(self, ask) if ask.unary or single else _StreamLink(self, ask)

    async def stream(self, ask: Ask, request: Outgoing) -> AsyncGenerator[DataRequest, None]:
        try:
            wire = (await self.kind(ask))(ask)
            method = self.channel.unary_stream(wire.parts, _serialize)
            call = method(
                wire.pack_single(request), metadata=_metadata(ask), compression=compression(ask.compression), timeout=ask.timeout_s
            )
            try:
                async for part in call:
                    yield wire.read_part(part)
            finally:
                call.cancel()
        except aio.AioRpcError as error:
            raise self.translate(error) from error

    async def ready(self, timeout_s: float, metadata: Metadata) -> None:
        method = self.channel.unary_unary(_DRY_RUN, Empty.SerializeToString, jina.Status.FromString)
        try:
            status = await method(Empty(), timeout=timeout_s, metadata=metadata)
        except aio.AioRpcError as error:
            raise self.translate(error) from error
        if status.code:
            raise ServerUnavailable(f"{self.address}: {status.description}")
        status_of(status).raise_for()

    async def result(self, ask: Ask, request_id: str, wait: bool) -> DataRequest | None:
        asked = own.ResultRequest(request_id=request_id, wait=wait)
        try:
            answer = await self.channel.unary_unary(_RESULT, _serialize)(asked, metadata=_metadata(ask), timeout=ask.timeout_s)
        except aio.AioRpcError as error:
            raise self.translate(error) from error
        found = own.Response.FromString(answer)
        return None if found.pending else OwnWire(ask).read(answer)

    async def operate(self, flow: str) -> NoReturn:
        raise BadArguments(f"{self.address}: {BROKER_ONLY}")

    def jobs(self, metadata: Metadata) -> GrpcJobs:
        return GrpcJobs(self.channel, metadata, self.translate)

    async def close(self) -> None:
        await self.channel.close()

    async def kind(self, ask: Ask) -> type[OwnWire | JinaWire]:
        """The interface that the server speaks. Raises our errors when it cannot be asked."""
        async with self._asking:
            if self._own is None:
                try:
                    self._own = await self._speaks_own(ask)
                except aio.AioRpcError as error:
                    raise self.translate(error) from error
        return OwnWire if self._own else JinaWire

    async def _speaks_own(self, ask: Ask) -> bool:
        call = self.channel.stream_stream(OwnWire.call)(metadata=_metadata(ask), timeout=ask.timeout_s)
        try:
            with suppress(aio.InternalError):  # the call has failed already: its status says why, this error does not
                await call.done_writing()
            await call.read()
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return False
            raise
        finally:
            call.cancel()
        return True

    def translate(self, error: aio.AioRpcError) -> StreamflowError:
        """Our class for a call that ended with an error; forgets which interface the server has when the connection failed."""
        kind = error_class(error)
        if kind is ServerUnavailable:
            self._own = None
        return kind(f"{self.address}: {error.code().name}: {error.details() or ''}")


class _UnaryLink(TaskLink):
    def __init__(self, transport: GrpcTransport, ask: Ask) -> None:
        super().__init__()
        self._transport, self._ask = transport, ask
        self._compression = compression(ask.compression)

    async def encode(self, request: Outgoing) -> None:
        request.encoded((await self._transport.kind(self._ask)).content_type)

    async def call(self, request: Outgoing) -> DataRequest:
        ask = self._ask
        try:
            wire = (await self._transport.kind(ask))(ask)
            method = self._transport.channel.unary_unary(wire.unary, _serialize)
            message = wire.pack(request)
            request.gone()
            reply = await method(message, metadata=_metadata(ask), compression=self._compression, timeout=ask.timeout_s)
        except aio.AioRpcError as error:
            raise self._transport.translate(error) from error
        return wire.read(reply)


class _StreamLink(StreamLink):
    """One stream of messages, each with the requests that were ready at the same moment."""

    def __init__(self, transport: GrpcTransport, ask: Ask) -> None:
        super().__init__()
        self._transport, self._ask = transport, ask
        self._compression = compression(ask.compression)
        self._call: Any = None
        self._wire: Wire
        self._outbox: deque[Outgoing] = deque()
        self._outbox_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._arrived: deque[DataRequest] = deque()

    async def encode(self, request: Outgoing) -> None:
        request.encoded((await self._transport.kind(self._ask)).content_type)

    async def open(self) -> None:
        self._wire = (await self._transport.kind(self._ask))(self._ask)
        method = self._transport.channel.stream_stream(self._wire.call, _serialize)
        self._call = method(metadata=_metadata(self._ask), compression=self._compression)

    async def write(self, request: Outgoing) -> None:
        self._outbox.append(request)
        self._outbox_bytes += len(request.body)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())  # starts when this turn of the loop has sent all it has
        if len(self._outbox) >= self._wire.most or self._outbox_bytes > BUNDLE_BYTES:
            await asyncio.wait([self._writer])

    async def _write(self) -> None:
        """Send the outbox. A stream that has ended is told by `receive`."""
        while bundle := self._next_bundle():
            message = self._wire.bundle(bundle)
            for request in bundle:
                request.gone()
            try:
                await self._call.write(message)
            except (aio.AioRpcError, asyncio.InvalidStateError):
                return

    def _next_bundle(self) -> list[Outgoing]:
        bundle: list[Outgoing] = []
        size = 0
        while self._outbox and len(bundle) < self._wire.most and size < BUNDLE_BYTES:
            request = self._outbox.popleft()
            if not request.answer.done():  # the answer to an earlier attempt may have come, or nobody waits any more
                bundle.append(request)
                size += len(request.body)
        self._outbox_bytes = sum(len(request.body) for request in self._outbox)
        return bundle

    async def receive(self) -> DataRequest | None:
        while not self._arrived:
            try:
                message = await self._call.read()
            except aio.AioRpcError as error:
                raise self._transport.translate(error) from error
            if message is aio.EOF:
                return None
            self._arrived.extend(self._wire.read_bundle(message))
        return self._arrived.popleft()

    async def finish(self) -> None:
        if self._writer is not None:
            await asyncio.wait([self._writer])
        with suppress(aio.InternalError):
            await self._call.done_writing()

    async def abort(self) -> None:
        if self._call is not None:
            self._call.cancel()
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        self._outbox.clear()
        self._outbox_bytes = 0
        self._arrived.clear()


def _metadata(ask: Ask) -> Metadata:
    return (*ask.metadata, *ask.trace.items())


def _serialize(message: Any) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized
