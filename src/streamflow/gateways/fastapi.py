"""`FastAPIBaseGateway`: a gateway that is a FastAPI app; server, ports, TLS, CORS and draining are taken care of."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any

from fastapi import FastAPI
from starlette.routing import Match

from streamflow.gateway.edge import edged
from streamflow.gateway.http_io import Receive, Scope, Send, closing
from streamflow.gateway.http_server import HttpServer, serve_http
from streamflow.gateway.listening import certificate_of

from .base import Gateway


class FastAPIBaseGateway(Gateway):
    """A subclass has a property `app`. `GET /` and `GET /dry_run`, which health checks and clients ask, are added where the app has none.

    The app is served on all ports, that of `websocket` too; `cors`, `compression`, `uvicorn_kwargs` and the certificate apply to it.
    """

    _server: HttpServer | None = None

    @property
    @abstractmethod
    def app(self) -> FastAPI:
        """The app to serve. Asked for once, after `setup_server`."""

    @property
    def is_listening(self) -> bool:
        return self._server is not None

    async def setup_server(self) -> None:
        self._ended = asyncio.Event()

    async def run_server(self) -> None:
        app = self.app
        self._add_health(app)
        settings = self._settings
        addresses = [(self.host, port) for port in dict.fromkeys(self.ports)]
        served = _Served(edged(app, settings))
        self._server = await serve_http(served, settings, addresses, certificate=certificate_of(settings), lifespan="auto")
        await self._ended.wait()

    async def shutdown(self) -> None:
        if self._server is not None:
            await self._server.stop(self._settings.drain_s)
        self._ended.set()

    def _add_health(self, app: FastAPI) -> None:
        for path, answer in (("/", self._alive), ("/dry_run", self._ready)):
            scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
            if not any(route.matches(scope)[0] is Match.FULL for route in app.router.routes):
                app.add_api_route(path, answer, tags=["Health"])

    async def _alive(self) -> dict[str, str]:
        return {}

    async def _ready(self) -> dict[str, Any]:
        return self.streamer.readiness()


class _Served:
    """A user's app as the server wants it; it knows of no draining, so the server alone waits for what is open."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._leaving = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, closing(send) if self._leaving and scope["type"] == "http" else send)

    async def drain(self) -> None:
        """From now on answers ask their clients to connect anew, to whoever serves next."""
        self._leaving = True

    def give_up(self) -> None:
        """What is still open is cut off by the server."""
