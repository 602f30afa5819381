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
from .grpc_streams import Context, Exchange, Streams, deadline_of, guarded
from .native_wire import answer, call_of
from .window import Window, answer_to

NATIVE = "streamflow.v1.Streamflow"


class NativeService:
    """The handlers; they take and give serialized messages."""

    def __init__(self, desk: Desk, streams: Streams, *, prefetch: int) -> None:
        self._desk = desk
        self._streams = streams
        self._prefetch = prefetch

    def handler(self) -> grpc.GenericRpcHandler:
        methods = {
            "Call": grpc.stream_stream_rpc_method_handler(guarded(self.call)),
            "Unary": grpc.unary_unary_rpc_method_handler(guarded(self.unary)),
            "Stream": grpc.unary_stream_rpc_method_handler(guarded(self.stream)),
        }
        return grpc.method_handlers_generic_handler(NATIVE, methods)

    async def unary(self, raw: bytes, context: Context) -> bytes:
        started = time.time()
        try:
            future = self._take(raw, context)
        except StreamflowError as error:
            return answer(refused(error), started)
        return answer(await answer_to(future), started)

    async def call(self, requests: AsyncIterator[bytes], context: Context) -> None:
        exchange = Exchange(lambda raw: self._take(raw, context), answer, fatal=False)
        await self._streams.serve(requests, context, Window(self._prefetch), exchange)

    async def stream(self, raw: bytes, context: Context) -> None:
        started = time.time()
        try:
            call = call_of(raw, self._desk.view, deadline=deadline_of(context))
        except StreamflowError as error:
            await context.write(answer(refused(error), started))
            return
        async with aclosing(self._desk.stream(call)) as parts:
            async for part in parts:
                await context.write(answer(part, started))

    def _take(self, raw: bytes, context: Context) -> asyncio.Future[Envelope]:
        return self._desk.send(call_of(raw, self._desk.view, deadline=deadline_of(context)))
