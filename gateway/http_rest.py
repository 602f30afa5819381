"""The slow routes: health, status, documentation. FastAPI's, beside the raw data routes of `http_app.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from starlette.routing import Match

from streamflow.broker.errors import Code
from streamflow.broker.settings import GatewaySettings

from .answers import status_json
from .exposed import Routes
from .info import gateway_info
from .openapi import OpenApi
from .view import FALLBACK, View

_MOST_PATHS = 4096
_JOBS = "/jobs"
Info = Callable[[], Mapping[str, str]]  # further lines of `GET /status`


def build_rest(view: View, settings: GatewaySettings, exposed: Routes, *, info: Info, routers: tuple[APIRouter, ...]) -> FastAPI:
    """The FastAPI app; its OpenAPI document also describes the data routes, by the schemas the workers announced.

    With an admin port of its own only what clients ask for stays here: `/` and `/dry_run`.
    """
    app = FastAPI(title=settings.title, description=settings.description, version="1")
    for router in routers:
        app.include_router(router)
    _add_client_routes(app, view)
    if settings.admin_port is None:
        _add_health_routes(app, view)
        if not settings.no_debug_endpoints:
            _add_status_route(app, info)
    document = OpenApi(app, view, exposed)
    app.openapi = document.build  # type: ignore[method-assign]  # FastAPI's documented way to replace the document
    return app


def build_admin(view: View, settings: GatewaySettings, *, info: Info, routers: tuple[APIRouter, ...] = ()) -> FastAPI:
    """The FastAPI app of the admin port: all that is for operators, and no data routes."""
    app = FastAPI(title=f"{settings.title}: operations", version="1")
    for router in routers:
        app.include_router(router)
    _add_client_routes(app, view)
    _add_health_routes(app, view)
    _add_status_route(app, info)
    return app


def _add_client_routes(app: FastAPI, view: View) -> None:
    @app.get("/", summary="Alive: answers as long as the gateway runs", tags=["Health"])
    async def root() -> dict[str, str]:
        return {}

    @app.get("/dry_run", summary="Readiness in Jina's form: code 0, or 1 with the reason", tags=["Health"])
    async def dry_run() -> dict[str, Any]:
        return status_json(view.readiness())


def _add_health_routes(app: FastAPI, view: View) -> None:
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


def _add_status_route(app: FastAPI, info: Info) -> None:
    @app.get("/status", summary="Versions and settings of this gateway", tags=["Debug"])
    async def status() -> dict[str, dict[str, str]]:
        return gateway_info(info())


class OwnRoutes:
    """Which requests are FastAPI's rather than for an executor."""

    def __init__(self, app: FastAPI) -> None:
        self._routes = app.routes
        self._known: dict[tuple[str, str], Match] = {}

    def claims(self, scope: MutableMapping[str, Any], view: View) -> bool:
        """True for our own paths; with POST instead of their own method, and below /jobs, they are an executor's if one serves that
        endpoint."""
        method, path = scope["method"], scope["path"]
        match = self._known.get((method, path)) or self._match(method, path)
        if match is Match.NONE:
            return False
        if match is Match.PARTIAL and method == "POST":
            return view.name(path) not in view.endpoints and FALLBACK not in view.endpoints
        return not (path.startswith(_JOBS) and view.name(path) in view.endpoints)

    def _match(self, method: str, path: str) -> Match:
        if len(self._known) >= _MOST_PATHS:  # of clients that ask for ever new paths
            self._known.clear()
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        matches = [route.matches(scope)[0] for route in self._routes]
        match = max(matches, key=lambda match: match.value, default=Match.NONE)
        self._known[method, path] = match
        return match
