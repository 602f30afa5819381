"""Access to the HTTP and WebSocket side: the ASGI callable before every app of a gateway, the built-in one and those of users.

Open to everybody: `GET` of `/`, `/healthz`, `/readyz` and `/dry_run`, which probes ask. A browser cannot send headers with a WebSocket, so
its token may come as a sub-protocol, `bearer.<token>`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from streamflow.broker.errors import PermissionDenied, StreamflowError, TooLarge, Unauthenticated
from streamflow.broker.settings import GatewaySettings

from .auth import Access, is_local
from .http_io import Headers, Receive, Scope, Send, refuse
from .principals import Principal
from .rules import Rules, rules_of
from .status import close_reason, outcome

App = Callable[[Any, Any, Any], Awaitable[None]]
CERTIFICATE = "streamflow.certificate"  # in a scope's `state`: names of the client certificate
_OPEN = frozenset({"/", "/healthz", "/readyz", "/dry_run"})
_BEARER_PROTOCOL = "bearer."
_CHALLENGE = ((b"www-authenticate", b"Bearer"),)


def guarded(app: App, settings: GatewaySettings) -> App:
    """`app` behind the rules of `settings`. Raises `FlowError` for an `auth_file` that cannot be used."""
    return Guard(app, rules_of(settings), Origins(settings.allowed_origins, any_origin=settings.cors)).enter


class Origins:
    """Which pages may open a WebSocket: browsers let any page do so, and send its cookies and its place in the network along."""

    def __init__(self, allowed: Collection[str], *, any_origin: bool) -> None:
        self._allowed = frozenset(each.rstrip("/") for each in allowed)
        self._any = any_origin and not allowed

    def check(self, headers: Headers) -> None:
        """Raise `PermissionDenied` for a page of another origin that is not listed. Only browsers send an origin."""
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin or self._any or origin in self._allowed:
            return
        if urlsplit(origin).netloc.lower() != headers.get(b"host", b"").decode("latin-1").lower():
            raise PermissionDenied(f"pages of {origin[:200]!r} may not open sockets here: list it in allowed_origins, or set cors")


class Guard:
    """`enter` is the ASGI callable."""

    def __init__(self, app: App, rules: Rules, origins: Origins) -> None:
        self._app = app
        self._rules = rules
        self._origins = origins

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine itself: where nothing is to be checked, requests pay for no further one."""
        access = self._rules.access
        if scope["type"] == "http" and (access is None or _passes(access, scope)):
            return self._app(scope, receive, send)
        return self._check(scope, receive, send)

    async def _check(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = dict(scope["headers"])
        try:
            if scope["type"] == "websocket":
                self._origins.check(headers)
            if self._rules.access is not None and not _passes(self._rules.access, scope):
                principal = self._rules.admit(_authorization(scope, headers), _names(scope))
                receive = _bounded(receive, principal) if scope["type"] == "http" else receive
        except (Unauthenticated, PermissionDenied) as error:
            return await (_refuse_socket if scope["type"] == "websocket" else _refuse)(send, error, headers)
        return await self._app(scope, receive, send)


def certificate_names(transport: Any) -> tuple[str, ...]:
    """Common name and alternative names in the certificate that a client has shown, () without one."""
    shown = transport.get_extra_info("peercert") or {}
    common = [value for part in shown.get("subject", ()) for name, value in part if name == "commonName"]
    return (*common, *(value for _, value in shown.get("subjectAltName", ())))


def _passes(access: Access, scope: Scope) -> bool:
    """Whether nobody asks who it is."""
    if access.lets_local and is_local((scope.get("client") or ("",))[0]):
        return True
    return scope["type"] == "http" and scope["path"] in _OPEN and scope["method"] in ("GET", "HEAD")


def _authorization(scope: Scope, headers: Headers) -> str:
    given = headers.get(b"authorization", b"").decode("latin-1")
    if not given and scope["type"] == "websocket":
        tokens = [name.removeprefix(_BEARER_PROTOCOL) for name in scope.get("subprotocols") or () if name.startswith(_BEARER_PROTOCOL)]
        return f"Bearer {tokens[0]}" if tokens else ""
    return given


def _names(scope: Scope) -> tuple[str, ...]:
    state: Mapping[str, Any] = scope.get("state") or {}
    return tuple(state.get(CERTIFICATE, ()))


def _bounded(receive: Receive, principal: Principal) -> Receive:
    """`receive` that raises `TooLarge` as soon as a body is above the caller's own limit."""
    limit = principal.limits.max_request_bytes
    if not limit:
        return receive
    size = 0

    async def bounded() -> Any:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise TooLarge(f"the body is larger than the {limit} bytes that {principal.name!r} may send")
        return message

    return bounded


async def _refuse(send: Send, error: StreamflowError, headers: Headers) -> None:
    await refuse(send, error, headers, time.time(), extra=_CHALLENGE if isinstance(error, Unauthenticated) else ())


async def _refuse_socket(send: Send, error: StreamflowError, headers: Headers) -> None:
    """Before the handshake is answered, so that the client sees an HTTP status."""
    body = close_reason(str(error)).encode()
    extra = _CHALLENGE if isinstance(error, Unauthenticated) else ()
    start = {"type": "websocket.http.response.start", "status": outcome(error.code).http}
    await send({**start, "headers": [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body)), *extra]})
    await send({"type": "websocket.http.response.body", "body": body})
