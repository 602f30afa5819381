"""The HTTP side of the gateway: one ASGI callable for data requests, documentation, health and WebSockets.

Data requests take the short way: raw ASGI, the client's bytes untouched, no framework object per request (FastAPI's own machinery would
cost 40 % of the throughput). Everything else is FastAPI's (`http_rest.py`), sockets are `ws_app.py`'s.

Request headers: `X-Request-Id`, `X-Streamflow-Timeout-Ms` (milliseconds this request may take), `X-Streamflow-Consistency`,
`X-Streamflow-Keep` and `Prefer: respond-async` (keeping.py), `traceparent`, `tracestate`.
Answers carry `X-Request-Id`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

from fastapi import APIRouter

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.errors import Code, FlowError, InvalidInput, StreamflowError, Unavailable
from streamflow.broker.settings import GatewaySettings

from .desk import Desk, Dispatching, refused
from .disconnect import DisconnectWatch
from .dispatch import Call
from .edge import edged
from .exposed import Routes
from .http_io import ClientGone, Headers, Receive, Scope, Send, UnsupportedType, check_type, closing, read_body, refuse, write_answer
from .http_rest import OwnRoutes, build_rest
from .json_wire import http_call
from .results_http import results_router
from .sse import EventStream, document_call, wants_events
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
    desk = Desk(dispatcher)
    return HttpApp(desk, settings, info=info, routers=(*routers, *_optional(desk, settings)))


def _optional(desk: Desk, settings: GatewaySettings) -> Iterator[APIRouter]:
    if settings.expose_graphql_endpoint:
        try:
            from .graphql_app import graphql_router  # graphql-core: an extra, and 0.3 s
        except ImportError as error:
            raise FlowError('gateway: expose_graphql_endpoint needs one more package: pip install "streamflow[graphql]"') from error
        yield graphql_router(desk, settings)


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
        self._routes = Routes(settings)
        self.rest = build_rest(desk.view, settings, self._routes, info=info, routers=(*routers, results_router(desk)))
        self._own = OwnRoutes(self.rest)
        self._entry = edged(self._route, settings)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine itself, as the next steps are not: each would cost every request."""
        return self._entry(scope, receive, closing(send) if self._view.draining.is_set() and scope["type"] == "http" else send)

    async def drain(self) -> None:
        """Turn readiness off, stop reading from sockets, and return when the last of them has its answers and is closed."""
        self._view.draining.set()
        await self._sockets.drain()

    def give_up(self) -> None:
        """Answer every open data request at once, with UNAVAILABLE."""
        self._view.draining.set()
        self._watch.cancel_all()

    def _route(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope.get("root_path"):  # of uvicorn_kwargs: behind a proxy that cuts it off
            scope = {**scope, "path": scope["path"].removeprefix(scope["root_path"])}
        if scope["type"] == "websocket":
            return self._sockets(scope, receive, send)
        if scope["type"] == "http" and not self._own.claims(scope, self._view):
            return self._data(scope, receive, send)
        return self.rest(scope, receive, send)

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
        path: str = scope["path"]
        exposed = self._routes.find(method, path)
        name = exposed.endpoint if exposed else path
        endpoint = self._view.endpoints.get(self._view.name(name))
        streaming = endpoint is not None and wants_events(method, endpoint, headers)
        if method != "POST" and not exposed and not (method == "GET" and streaming):
            await self._wrong_method(scope, receive, send, endpoint)
            return
        body = await read_body(receive, headers, self._limit_bytes)
        if body:
            check_type(headers)
        if endpoint is not None and (streaming or method == "GET"):
            call = document_call(endpoint, query=scope["query_string"], headers=headers, body=body)
        else:
            call = http_call(name, headers, body, self._view)
        await (self._events.answer(call, scope, receive, send, started) if streaming else self._answer(call, receive, send, started))

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
        known = set(self._routes.methods_of(scope["path"]))
        if endpoint is not None:
            known |= {"GET", "POST"} if endpoint.streaming else {"POST"}
        if not known:
            await self.rest(scope, receive, send)  # 404
            return
        allow = ", ".join(sorted(known)).encode()
        error = InvalidInput(f"method {scope['method']} is not allowed for {scope['path'][:200]}")
        await refuse(send, error, dict(scope["headers"]), time.time(), http_status=405, extra=((b"allow", allow),))
