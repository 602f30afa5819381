"""Jina's gRPC services (`jina.proto`), so that its clients and stubs work unchanged.

An executor's exception is a normal answer with `header.status` ERROR; an executor that nobody serves and a passed deadline end the call,
with UNAVAILABLE and DEADLINE_EXCEEDED, which Jina's client raises as `ConnectionError`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing

import grpc

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import Code, StreamflowError

from . import jina_wire
from .desk import Desk, refused
from .grpc_streams import Context, Exchange, Handler, Streams, abort, guarded, metadata, wishes_of, with_id
from .info import gateway_info
from .proto import shallow_pb2 as pb
from .status import outcome
from .window import Window, answer_to

_IN_ORDER = "__results_in_order__"  # metadata by which Jina's client asks for answers in the order of its requests
_PREFETCH = "__prefetch__"


class JinaServices:
    """The handlers; they take and give serialized messages."""

    def __init__(self, desk: Desk, streams: Streams, *, prefetch: int, info: Callable[[], Mapping[str, str]] | None) -> None:
        """`info` None = no `_status`."""
        self._desk = desk
        self._streams = streams
        self._prefetch = prefetch
        self._info = info

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        def unary(handler: Handler) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(guarded(handler))

        services: dict[str, dict[str, grpc.RpcMethodHandler]] = {
            "JinaRPC": {"Call": grpc.stream_stream_rpc_method_handler(guarded(self.call))},
            "JinaSingleDataRequestRPC": {"process_single_data": unary(self.process_single_data)},
            "JinaSingleDocumentRequestRPC": {"stream_doc": grpc.unary_stream_rpc_method_handler(guarded(self.stream_doc))},
            "JinaDataRequestRPC": {"process_data": unary(self.process_data)},
            "JinaDiscoverEndpointsRPC": {"endpoint_discovery": unary(self.endpoint_discovery)},
            "JinaGatewayDryRunRPC": {"dry_run": unary(self.dry_run)},
        }
        if self._info is not None:
            services["JinaInfoRPC"] = {"_status": unary(_teller(self._info))}
        return [grpc.method_handlers_generic_handler(f"jina.{name}", methods) for name, methods in services.items()]

    async def process_single_data(self, raw: bytes, context: Context) -> bytes:
        started = time.time()
        try:
            call = jina_wire.call_of(jina_wire.read(pb.DataRequest, raw), self._desk.view)
            future = self._desk.send(with_id(wishes_of(context)().applied(call), context))
        except StreamflowError as error:
            return jina_wire.data_answer(refused(error), started)
        return await self._answer(future, context, started)

    async def process_data(self, raw: bytes, context: Context) -> bytes:
        started = time.time()
        try:
            requests = jina_wire.read(pb.DataRequestList, raw)
            call = wishes_of(context)().applied(jina_wire.call_of_list(requests, self._desk.view))
        except StreamflowError as error:
            return jina_wire.data_answer(refused(error), started)
        return await self._answer(self._desk.send(call), context, started)

    async def call(self, requests: AsyncIterator[bytes], context: Context) -> None:
        sent = metadata(context)
        window: Window[float] = Window(_lower(self._prefetch, sent.get(_PREFETCH, "")), in_order=sent.get(_IN_ORDER) == "true")
        wishes, view = wishes_of(context), self._desk.view

        def take(raw: bytes) -> asyncio.Future[Envelope]:
            return self._desk.send(wishes().applied(jina_wire.call_of(jina_wire.read(pb.DataRequest, raw), view)))

        exchange = Exchange(take, _id_of, jina_wire.data_answer, fatal=True)
        await self._streams.serve(requests, context, window, exchange)

    async def stream_doc(self, raw: bytes, context: Context) -> None:
        started = time.time()
        try:
            request = jina_wire.read(pb.SingleDocumentRequest, raw)
            call = wishes_of(context)().applied(jina_wire.call_of_document(request, self._desk.view))
        except StreamflowError as error:
            await context.write(jina_wire.document_answer(refused(error), started))
            return
        async with aclosing(self._desk.stream(call)) as parts:
            async for part in parts:
                if outcome(part.status.code).aborts:
                    await abort(context, part)
                if part.body or part.status.code is not Code.OK:  # an empty last part only marks the end
                    await context.write(jina_wire.document_answer(part, started))

    async def endpoint_discovery(self, raw: bytes, context: Context) -> bytes:
        return bytes(jina_wire.endpoints_message(self._desk.view.endpoints).SerializeToString())

    async def dry_run(self, raw: bytes, context: Context) -> bytes:
        return bytes(jina_wire.status_message(self._desk.view.readiness()).SerializeToString())

    async def _answer(self, future: asyncio.Future[Envelope], context: Context, started: float) -> bytes:
        envelope = await answer_to(future)
        if outcome(envelope.status.code).aborts:
            await abort(context, envelope)
        return jina_wire.data_answer(envelope, started)


def _id_of(raw: bytes) -> str:
    return str(jina_wire.read(pb.DataRequest, raw).header.request_id)


def _teller(info: Callable[[], Mapping[str, str]]) -> Handler:
    async def status(raw: bytes, context: Context) -> bytes:
        return bytes(pb.Info(**gateway_info(info())).SerializeToString())

    return status


def _lower(own: int, asked: str) -> int:
    """The smaller of two limits where 0 means none."""
    wanted = int(asked) if asked.isascii() and asked.isdigit() else 0
    return min(own or wanted, wanted or own)
