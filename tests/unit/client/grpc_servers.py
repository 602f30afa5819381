"""A gRPC server for the client tests, with both interfaces or with Jina's only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from docarray import DocList
from google.protobuf.empty_pb2 import Empty
from grpc import aio

from streamflow.broker.errors import Code, Status
from streamflow.gateway.proto import shallow_pb2 as jina
from streamflow.gateway.proto import streamflow_pb2 as own
from tests.unit.client.backend import Answered, Asked, Backend, Item
from tests.unit.client.messages import jina_answer, jina_asked, jina_status, own_answer, own_asked


class GrpcServer:
    """`own=True`: both interfaces, as a streamflow gateway; else Jina's only."""

    def __init__(self, backend: Backend, own_too: bool) -> None:
        self.backend = backend
        self.own_too = own_too
        self.ready = True

    async def start(self, port: int) -> int:
        self.server = aio.server()
        self.server.add_generic_rpc_handlers((self.router(),))
        bound = self.server.add_insecure_port(f"127.0.0.1:{port}")
        await self.server.start()
        return int(bound)

    async def stop(self) -> None:
        await self.server.stop(None)

    def router(self) -> grpc.GenericRpcHandler:
        return _Router(self._methods())

    def _methods(self) -> dict[str, Any]:
        methods = {
            "/jina.JinaRPC/Call": _stream_stream(self._jina_call),
            "/jina.JinaSingleDataRequestRPC/process_single_data": grpc.unary_unary_rpc_method_handler(self._jina_unary),
            "/jina.JinaSingleDocumentRequestRPC/stream_doc": grpc.unary_stream_rpc_method_handler(self._jina_stream),
            "/jina.JinaGatewayDryRunRPC/dry_run": grpc.unary_unary_rpc_method_handler(self._dry_run),
        }
        if self.own_too:
            methods |= {
                "/streamflow.v1.Streamflow/Exchange": _stream_stream(self._own_call, unpack=_requests, pack=_responses),
                "/streamflow.v1.Streamflow/Unary": grpc.unary_unary_rpc_method_handler(self._own_unary),
                "/streamflow.v1.Streamflow/Stream": grpc.unary_stream_rpc_method_handler(self._own_stream),
            }
        return methods

    async def _dry_run(self, raw: bytes, context: Any) -> bytes:
        Empty.FromString(raw)
        status = Status() if self.ready else Status(Code.UNAVAILABLE, "executor 'first' has no worker")
        return bytes(jina_status(status).SerializeToString())

    async def _own_unary(self, raw: bytes, context: Any) -> bytes:
        asked = own_asked(own.Request.FromString(raw), context, "unary")
        return bytes(own_answer(asked, await self._run(asked, context)).SerializeToString())

    async def _own_call(self, raw: bytes, context: Any) -> bytes:
        asked = own_asked(own.Request.FromString(raw), context, "stream")
        return bytes(own_answer(asked, await self._run(asked, context)).SerializeToString())

    async def _own_stream(self, raw: bytes, context: Any) -> AsyncIterator[bytes]:
        asked = own_asked(own.Request.FromString(raw), context, "parts")
        position = 0
        async for part in self.backend.talk(asked):
            yield own_answer(asked, part, position, final=False).SerializeToString()
            position += 1
        yield own_answer(asked, Answered(DocList[Item]()), position).SerializeToString()

    async def _jina_unary(self, raw: bytes, context: Any) -> bytes:
        asked = jina_asked(jina.DataRequest.FromString(raw), dict(context.invocation_metadata() or ()), "unary")
        return bytes(jina_answer(asked, await self._run(asked, context)).SerializeToString())

    async def _jina_call(self, raw: bytes, context: Any) -> bytes:
        asked = jina_asked(jina.DataRequest.FromString(raw), dict(context.invocation_metadata() or ()), "stream")
        return bytes(jina_answer(asked, await self._run(asked, context)).SerializeToString())

    async def _jina_stream(self, raw: bytes, context: Any) -> AsyncIterator[bytes]:
        request = jina.SingleDocumentRequest.FromString(raw)
        content = jina.DataContent(docs=jina.DocList(docs=[request.document]).SerializeToString()).SerializeToString()
        data = jina.DataRequest(header=request.header, data=content)
        data.parameters.CopyFrom(request.parameters)
        asked = jina_asked(data, dict(context.invocation_metadata() or ()), "parts")
        async for part in self.backend.talk(asked):
            answer = jina_answer(asked, part)
            single = jina.SingleDocumentRequest(header=answer.header)
            if answer.data:
                single.document = jina.DocList.FromString(jina.DataContent.FromString(answer.data).docs).docs[0]
            yield single.SerializeToString()

    async def _run(self, asked: Asked, context: Any) -> Answered:
        try:
            return await self.backend.answer(asked)
        except BrokenPipeError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "worker(s) may be down")
            raise AssertionError("abort raises") from None


class _Router(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def __init__(self, methods: dict[str, Any]) -> None:
        self._methods = methods

    def service(self, handler_call_details: Any) -> Any:
        return self._methods.get(handler_call_details.method)


def _requests(raw: bytes) -> list[bytes]:
    return [request.SerializeToString() for request in own.Requests.FromString(raw).requests]


def _responses(answer: bytes) -> bytes:
    return bytes(own.Responses(responses=[own.Response.FromString(answer)]).SerializeToString())


def _stream_stream(
    one: Callable[[bytes, Any], Awaitable[bytes]],
    *,
    unpack: Callable[[bytes], list[bytes]] = lambda raw: [raw],
    pack: Callable[[bytes], bytes] = lambda answer: answer,
) -> Any:
    """A handler that answers each request of a stream when it is done; a message may hold several."""

    async def handle(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        done: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        open_tasks: set[asyncio.Task[bytes]] = set()

        async def read() -> None:
            async for message in requests:
                for raw in unpack(message):
                    task = asyncio.ensure_future(one(raw, context))
                    open_tasks.add(task)
                    task.add_done_callback(done.put_nowait)
            await asyncio.gather(*open_tasks, return_exceptions=True)
            done.put_nowait(None)

        reader = asyncio.create_task(read())
        try:
            while (task := await done.get()) is not None:
                yield pack(task.result())
        finally:
            reader.cancel()
            for task in open_tasks:
                task.cancel()
            await asyncio.gather(reader, *open_tasks, return_exceptions=True)

    return grpc.stream_stream_rpc_method_handler(handle)
