"""`streamflow.v1.Streamflow`: our own gRPC service, any content type, errors always in the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import StreamflowError

from .desk import Desk, refused
from .dispatch import Call
from .grpc_streams import Bundling, Context, Exchange, Streams, guarded, wishes_of, with_id
from .jina_wire import read
from .native_wire import answer, call_of, call_of_request, message_of, requests_of, responses_of
from .proto import streamflow_pb2 as pb
from .window import Window, answer_to

NATIVE = "streamflow.v1.Streamflow"
BUNDLE = 64  # answers in one message


class NativeService:
    """The handlers; they take and give serialized messages."""

    def __init__(self, desk: Desk, streams: Streams, *, prefetch: int) -> None:
        self._desk = desk
        self._streams = streams
        self._prefetch = prefetch

    def handler(self) -> grpc.GenericRpcHandler:
        methods = {
            "Call": grpc.stream_stream_rpc_method_handler(guarded(self.call)),
            "Exchange": grpc.stream_stream_rpc_method_handler(guarded(self.exchange)),
            "Unary": grpc.unary_unary_rpc_method_handler(guarded(self.unary)),
            "Stream": grpc.unary_stream_rpc_method_handler(guarded(self.stream)),
            "Result": grpc.unary_unary_rpc_method_handler(guarded(self.result)),
        }
        return grpc.method_handlers_generic_handler(NATIVE, methods)

    async def unary(self, raw: bytes, context: Context) -> bytes:
        started = time.time()
        try:
            future = self._desk.send(with_id(self._call(raw, context), context))
        except StreamflowError as error:
            return answer(refused(error), started)
        return answer(await answer_to(future), started)

    async def result(self, raw: bytes, context: Context) -> bytes:
        """The kept answer of an earlier request."""
        started = time.time()
        try:
            asked = read(pb.ResultRequest, raw)
        except StreamflowError as error:
            return answer(refused(error), started)
        return answer(await self._desk.result(asked.request_id, wait=asked.wait), started)

    async def call(self, requests: AsyncIterator[bytes], context: Context) -> None:
        wishes, view = wishes_of(context), self._desk.view

        def take(raw: bytes) -> asyncio.Future[Envelope]:
            return self._desk.send(wishes().applied(call_of(raw, view)))

        exchange = Exchange(take, lambda raw: read(pb.Request, raw).request_id, answer, fatal=False)
        await self._streams.serve(requests, context, Window(self._prefetch), exchange)

    async def exchange(self, requests: AsyncIterator[bytes], context: Context) -> None:
        wishes, view = wishes_of(context), self._desk.view

        def take(request: pb.Request) -> asyncio.Future[Envelope]:
            return self._desk.send(wishes().applied(call_of_request(request, view)))

        bundling = Bundling(requests_of, responses_of, BUNDLE)
        exchange = Exchange(take, lambda request: request.request_id, message_of, fatal=False, bundling=bundling)
        await self._streams.serve(requests, context, Window(self._prefetch), exchange)

    async def stream(self, raw: bytes, context: Context) -> None:
        started = time.time()
        try:
            call = self._call(raw, context)
        except StreamflowError as error:
            await context.write(answer(refused(error), started))
            return
        async with aclosing(self._desk.stream(call)) as parts:
            async for part in parts:
                await context.write(answer(part, started))

    def _call(self, raw: bytes, context: Context) -> Call:
        return wishes_of(context)().applied(call_of(raw, self._desk.view))
