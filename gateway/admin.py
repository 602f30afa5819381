"""The admin port: health, readiness and status on an address of their own, so that the public one need not carry them."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter

from streamflow.broker.lifecycle import Stop
from streamflow.broker.settings import GatewaySettings

from .auth_http import guarded
from .desk import Desk, Dispatching
from .http_io import Receive, Scope, Send
from .http_rest import Info, build_admin


def create_admin(
    dispatcher: Dispatching, settings: GatewaySettings, stop: Stop, *, info: Info = dict, routers: Iterable[APIRouter] = ()
) -> AdminApp:
    """The ASGI app of the admin port; `routers` are further FastAPI routes."""
    return AdminApp(Desk(dispatcher), settings, stop, info=info, routers=tuple(routers))


class AdminApp:
    """Not ready as soon as `stop` is set, and there until the last answer of the other ports is out."""

    def __init__(self, desk: Desk, settings: GatewaySettings, stop: Stop, *, info: Info, routers: tuple[APIRouter, ...]) -> None:
        self._view = desk.view
        self._stop = stop
        self._rest = guarded(build_admin(desk.view, settings, info=info, routers=routers), settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._stop.is_set():
            self._view.draining.set()
        await self._rest(scope, receive, send)

    async def drain(self) -> None:
        """Its answers are immediate: nothing is open."""

    def give_up(self) -> None:
        """As above."""
