"""The HTTP side of the gateway: one ASGI callable for data requests, documentation, health and WebSockets.

Data requests take the short way: raw ASGI, the client's bytes untouched, no framework object per request (FastAPI's own machinery would
cost 40 % of the throughput). Everything else is FastAPI's (`http_rest.py`), sockets are `ws_app.py`'s.

Request headers: `X-Request-Id`, `X-Streamflow-Timeout-Ms` (milliseconds this request may take), `traceparent`, `tracestate`.
Answers carry `X-Request-Id`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from fastapi import APIRouter
from starlette.middleware.cors import CORSMiddleware

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.errors import Code, InvalidInput, StreamflowError, Unavailable
from streamflow.broker.settings import GatewaySettings

from .desk import Desk, Dispatching, refused
from .disconnect import DisconnectWatch
from .dispatch import Call
from .http_io import ClientGone, Headers, Receive, Scope, Send, UnsupportedType, check_type, read_body, refuse, write_answer
from .http_rest import OwnRoutes, build_rest
from .json_wire import http_call
from .sse import EventStream, streaming_call, wants_events
from .window import answer_to
from .ws_app import SocketApp

logger = logging.getLogger(__name__)


def create_app(
    dispatcher: Dispatching,
    settings: GatewaySettings,
    *,
    info: Callable[[], Mapping[str, str]] = dict,
    routers: Iterable[APIRouter] = (),
) -> HttpApp:
    """The ASGI app of one gateway.

    `info` adds lines to `GET /status`; `routers` are further FastAPI routes, which win over data routes of the same path.
    """
    return HttpApp(Desk(dispatcher), settings, info=info, routers=tuple(routers))


class HttpApp:
    """The ASGI callable. `rest` is the FastAPI app behind it."""

    def __init__(
        self, desk: Desk, settings: GatewaySettings, *, info: Callable[[], Mapping[str, str]], routers: tuple[APIRouter, ...]
    ) -> None:
        self._desk = desk
        self._view = desk.view
        self._limit_bytes = settings.max_request_bytes
        self._watch = DisconnectWatch()
        self._sockets = SocketApp(desk, settings)
        self._events = EventStream(desk)
        self.rest = build_rest(desk.view, settings, info=info, routers=routers)
        self._own = OwnRoutes(self.rest)
        self._entry: Callable[[Any, Any, Any], Awaitable[None]] = self._route
        if settings.cors:
            shown = ["x-request-id", "retry-after"]
            self._entry = CORSMiddleware(self._route, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], expose_headers=shown)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._entry(scope, receive, send)

    async def drain(self) -> None:
        """Turn readiness off, stop reading from sockets, and return when the last of them has its answers and is closed."""
        self._view.draining.set()
        await self._sockets.drain()

    def give_up(self) -> None:
        """Answer every open data request at once, with UNAVAILABLE."""
        self._view.draining.set()
        self._watch.cancel_all()

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._sockets(scope, receive, send)
        elif scope["type"] == "http" and not self._own.claims(scope, self._view):
            await self._data(scope, receive, send)
        else:
            await self.rest(scope, receive, send)

    async def _data(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.time()
        headers = dict(scope["headers"])
        try:
            await self._take(scope, receive, send, headers, started)
        except ClientGone:
            return
        except StreamflowError as error:
            await refuse(send, error, headers, started, http_status=415 if isinstance(error, UnsupportedType) else 0)
        except Exception:
            logger.exception("%s %s failed inside the gateway", scope["method"], scope["path"])
            await refuse(send, StreamflowError("the gateway failed on this request"), headers, started)

    async def _take(self, scope: Scope, receive: Receive, send: Send, headers: Headers, started: float) -> None:
        method: str = scope["method"]
        endpoint = self._view.endpoints.get(self._view.name(scope["path"]))
        streaming = endpoint is not None and wants_events(method, endpoint, headers)
        if method != "POST" and not (method == "GET" and streaming):
            await self._wrong_method(scope, receive, send, endpoint)
            return
        body = await read_body(receive, headers, self._limit_bytes)
        if body:
            check_type(headers)
        if endpoint is not None and streaming:
            call = streaming_call(endpoint, query=scope["query_string"], headers=headers, body=body)
            await self._events.answer(call, receive, send, started)
        else:
            await self._answer(http_call(scope["path"], headers, body, self._view), receive, send, started)

    async def _answer(self, call: Call, receive: Receive, send: Send, started: float) -> None:
        future = self._desk.send(call)
        self._watch.add(future, receive)
        try:
            envelope = await answer_to(future)
        finally:
            gone = self._watch.drop(future)
        if envelope.status.code is Code.CANCELLED and self._view.draining.is_set():
            envelope = refused(Unavailable("the gateway is shutting down"), call)
        if not gone:
            await write_answer(send, envelope, started)

    async def _wrong_method(self, scope: Scope, receive: Receive, send: Send, endpoint: EndpointInfo | None) -> None:
        if endpoint is None:
            await self.rest(scope, receive, send)  # 404
            return
        allow = b"GET, POST" if endpoint.streaming else b"POST"
        error = InvalidInput(f"method {scope['method']} is not allowed for {scope['path'][:200]}")
        await refuse(send, error, dict(scope["headers"]), time.time(), http_status=405, extra=((b"allow", allow),))
