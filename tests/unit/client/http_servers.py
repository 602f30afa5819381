"""An HTTP server for the client tests: requests, server-sent events and WebSockets."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from streamflow.broker import codec
from streamflow.broker.envelope import JSON
from streamflow.broker.errors import Code, Status
from streamflow.gateway.proto import shallow_pb2 as jina
from tests.unit.client.backend import Answered, Asked, Backend, body_of, docs_of
from tests.unit.client.messages import jina_answer, jina_asked, jina_status


class HttpServer:
    """`listed` = serve these paths only, as Jina does, and list them in /openapi.json; empty = every path."""

    def __init__(self, backend: Backend, listed: tuple[str, ...] = (), ssl_context: ssl.SSLContext | None = None) -> None:
        self.backend = backend
        self._ssl_context = ssl_context
        self.listed = listed
        self.ready = True
        self.requests: list[str] = []  # "POST /echo"

    async def start(self, port: int) -> int:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True, ssl_context=self._ssl_context)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        if request.path == "/dry_run" and "upgrade" not in request.headers:
            return web.json_response(
                {"code": 0 if self.ready else 1, "description": "" if self.ready else "executor 'first' has no worker"}
            )
        if request.path == "/openapi.json":
            return web.json_response({"paths": {path: {"post": {}} for path in self.listed}})
        if request.headers.get("upgrade") == "websocket":
            return await self._socket(request)
        if self.listed and request.path not in self.listed:
            return web.json_response({"detail": "Not Found"}, status=404)
        if request.method == "GET":
            return await self._events(request)
        return await self._post(request)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        header = body.get("header") or {}
        asked = Asked(
            request.path,
            docs_of(orjson.dumps(body["data"]), JSON),
            body.get("parameters") or {},
            header.get("target_executor") or "",
            header["request_id"],
            float(request.headers.get("x-streamflow-timeout-ms", 0)),
            dict(request.headers),
            "post",
        )
        try:
            answered = await self.backend.answer(asked)
        except BrokenPipeError:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.Response(body=_json(asked, answered), status=_HTTP.get(answered.status.code, 500), content_type="application/json")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        values = orjson.loads(body)
        parameters = values.pop("parameters", None) or {}
        document = values.get("data", [values])
        asked = Asked(request.path, docs_of(orjson.dumps(document), JSON), parameters, metadata=dict(request.headers), method="parts")
        asked.request_id = request.headers["x-request-id"]
        ours = {} if self.listed else {"x-request-id": asked.request_id}
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **ours})
        await response.prepare(request)
        async for part in self.backend.talk(asked):
            if part.status.code is not Code.OK:
                await response.write(b"event: error\r\ndata: %b\r\n\r\n" % _json(asked, part))
                return response
            await response.write(b": ping\r\n\r\nevent: update\r\ndata: %b\r\n\r\n" % codec.encode(part.docs, JSON)[1:-1])
        await response.write(b"event: end\r\n\r\n")
        return response

    async def _talk(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        """One stream in the `json` sub-protocol."""
        question = orjson.loads((await socket.receive()).data)
        assert question["stream"] is True
        header = question["header"]
        asked = Asked(
            header["execEndpoint"],
            docs_of(orjson.dumps(question["data"]), JSON),
            question["parameters"],
            header["targetExecutor"] or "",
            header["requestId"],
            float(request.headers.get("x-streamflow-timeout-ms", 0)),
            dict(request.headers),
            "parts",
        )
        position = 0
        async for part in self.backend.talk(asked):
            is_last = part.status.code is not Code.OK
            await socket.send_bytes(b'{"position":%d,"final":%b,%b' % (position, b"true" if is_last else b"false", _json(asked, part)[1:]))
            position += 1
            if is_last:
                return
        await socket.send_bytes(b'{"data":[],"position":%d,"final":true}' % position)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=() if self.listed else ("bytes", "json"))
        await socket.prepare(request)
        if request.path == "/dry_run":
            await socket.receive()
            status = Status() if self.ready else Status(Code.UNAVAILABLE, "executor 'first' has no worker")
            await socket.send_bytes(jina_status(status).SerializeToString())
            return socket
        if socket.ws_protocol == "json":
            await self._talk(socket, request)
            return socket
        tasks: set[asyncio.Task[None]] = set()

        async def one(data: bytes) -> None:
            asked = jina_asked(jina.DataRequest.FromString(data), dict(request.headers), "socket")
            try:
                await socket.send_bytes(jina_answer(asked, await self.backend.answer(asked)).SerializeToString())
            except BrokenPipeError:
                await socket.close(code=1011, message=b"worker(s) may be down")

        async for message in socket:
            if message.type is not WSMsgType.BINARY:
                continue
            if message.data == b"\x01":
                await asyncio.gather(*tasks, return_exceptions=True)
                break
            tasks.add(asyncio.create_task(one(message.data)))
        for task in tasks:
            task.cancel()
        await socket.close()
        return socket


_HTTP = {
    Code.OK: 200,
    Code.EXECUTOR_ERROR: 500,
    Code.INVALID_ARGUMENT: 422,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


def _json(asked: Asked, answered: Answered) -> bytes:
    status = answered.status
    header: dict[str, Any] = {"requestId": asked.request_id, "execEndpoint": asked.endpoint, "targetExecutor": asked.target, "status": None}
    failure: dict[str, Any] = {}
    if status.code is not Code.OK:
        raised = {"name": status.exception, "args": status.args, "stacks": status.stacks, "executor": status.executor}
        header["status"] = {"code": 1, "description": status.description, "exception": raised}
        failure = {"detail": status.description, "code": status.code.value}
    routes = [
        {"executor": "gateway", "startTime": "1970-01-01T00:00:01.000000+00:00", "endTime": "1970-01-01T00:00:04.000000+00:00"},
        {"executor": "first", "startTime": "1970-01-01T00:00:02.000000+00:00", "endTime": "1970-01-01T00:00:03.000000+00:00"},
    ]
    parameters = asked.parameters | ({"__results__": answered.results} if answered.results else {})
    rest = orjson.dumps(failure | {"header": header, "parameters": parameters, "routes": routes})
    return b'{"data":%b,%b' % (body_of(answered.docs, JSON) or b"[]", rest[1:])
