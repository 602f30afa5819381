"""The slow routes: health, status, documentation. FastAPI's, beside the raw data routes of `http_app.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from starlette.routing import Match

from streamflow.broker.errors import Code
from streamflow.broker.settings import GatewaySettings

from .answers import status_json
from .info import gateway_info
from .openapi import OpenApi
from .view import FALLBACK, View

_MOST_PATHS = 4096


def build_rest(view: View, settings: GatewaySettings, *, info: Callable[[], Mapping[str, str]], routers: tuple[APIRouter, ...]) -> FastAPI:
    """The FastAPI app; its OpenAPI document also describes the data routes, by the schemas the workers announced."""
    app = FastAPI(title=settings.title, description=settings.description, version="1")
    for router in routers:
        app.include_router(router)

    @app.get("/", summary="Alive: answers as long as the gateway runs", tags=["Health"])
    async def root() -> dict[str, str]:
        return {}

    @app.get("/healthz", summary="Alive: answers as long as the gateway runs", tags=["Health"])
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Ready: 200 when every executor has a ready replica, 503 with the reason otherwise", tags=["Health"])
    async def readyz(response: Response) -> dict[str, str]:
        readiness = view.readiness()
        if readiness.code is Code.OK:
            return {"status": "ready"}
        response.status_code = 503
        return {"status": "not ready", "detail": readiness.description}

    @app.get("/dry_run", summary="Readiness in Jina's form: code 0, or 1 with the reason", tags=["Health"])
    async def dry_run() -> dict[str, Any]:
        return status_json(view.readiness())

    @app.get("/status", summary="Versions and settings of this gateway", tags=["Debug"])
    async def status() -> dict[str, dict[str, str]]:
        return gateway_info(info())

    document = OpenApi(app, view)
    app.openapi = document.build  # type: ignore[method-assign]  # FastAPI's documented way to replace the document
    return app


class OwnRoutes:
    """Which requests are FastAPI's rather than for an executor."""

    def __init__(self, app: FastAPI) -> None:
        self._routes = app.routes
        self._known: dict[tuple[str, str], Match] = {}

    def claims(self, scope: MutableMapping[str, Any], view: View) -> bool:
        """True for our own paths; with POST instead of their own method they are an executor's if one serves that endpoint."""
        method, path = scope["method"], scope["path"]
        match = self._known.get((method, path)) or self._match(method, path)
        if match is not Match.PARTIAL or method != "POST":
            return match is not Match.NONE
        return view.name(path) not in view.endpoints and FALLBACK not in view.endpoints

    def _match(self, method: str, path: str) -> Match:
        if len(self._known) >= _MOST_PATHS:  # of clients that ask for ever new paths
            self._known.clear()
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        matches = [route.matches(scope)[0] for route in self._routes]
        match = max(matches, key=lambda match: match.value, default=Match.NONE)
        self._known[method, path] = match
        return match
