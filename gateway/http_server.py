"""A uvicorn server inside our own process: several ports, no signal handlers of its own, a stop that drains."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import inspect
import os
import socket
import ssl
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import uvicorn
from uvicorn.importer import ImportFromStringError

from streamflow.broker.errors import FlowError, RuntimeFailToStart
from streamflow.broker.settings import GatewaySettings

from .connections import HttpConnection, SocketConnection
from .http_io import Receive, Scope, Send
from .slow_clients import cut_slow_clients

_KEEP_ALIVE_S = 75  # seconds an idle connection stays open
_BACKLOG = 2048
_STARTUP_POLL_S = 0.005
_LINGER_S = 0.3  # for idle connections, whose next request may be on its way: its answer asks the client to connect anew
_LAST_WORDS_S = 0.5  # for the refusals of a stop that ran out of time
_OURS = frozenset(  # arguments of uvicorn.Config that the gateway decides
    {"self", "app", "host", "port", "uds", "fd", "workers", "reload", "reload_dirs", "reload_delay", "reload_includes", "reload_excludes",
     "factory", "interface", "env_file", "callback_notify"}
)  # fmt: skip


class App(Protocol):
    """An ASGI callable that can be asked to come to an end."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]: ...

    async def drain(self) -> None:
        """Turn readiness off, and return when the connections that would not end by themselves have."""

    def give_up(self) -> None:
        """Answer what is open at once."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the process's business, not one server's


class HttpServer:
    """A running server; `ports` are the real ones, in the order asked for."""

    def __init__(
        self, app: App, server: uvicorn.Server, sockets: list[socket.socket], task: asyncio.Task[None], cutter: asyncio.Task[None]
    ) -> None:
        self._app = app
        self._cutter = cutter
        self._server = server
        self._sockets = sockets
        self._task = task
        self.ports: list[int] = [listening.getsockname()[1] for listening in sockets]

    async def stop(self, grace_s: float) -> None:
        """Refuse new connections, answer what is in flight for up to `grace_s` seconds, then refuse the rest and close."""
        until = asyncio.get_running_loop().time() + grace_s
        for listening in self._server.servers:
            listening.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._app.drain()
                await self._linger()
        self._server.should_exit = True
        if not await self._ended(until - asyncio.get_running_loop().time()):
            self._app.give_up()
            if not await self._ended(_LAST_WORDS_S):
                self._break()
        await self._task
        self._cutter.cancel()

    async def _linger(self) -> None:
        limit = asyncio.get_running_loop().time() + _LINGER_S
        while self._server.server_state.connections and asyncio.get_running_loop().time() < limit:
            await asyncio.sleep(_STARTUP_POLL_S)

    async def _ended(self, timeout_s: float) -> bool:
        done, _ = await asyncio.wait((self._task,), timeout=max(timeout_s, 0.0))
        return bool(done)

    def _break(self) -> None:
        """Close every connection that is still open, whatever it does."""
        self._server.force_exit = True
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        for task in list(self._server.server_state.tasks):
            task.cancel()


async def serve_http(
    app: App,
    settings: GatewaySettings,
    addresses: Iterable[tuple[str, int]],
    *,
    certificate: tuple[Path, Path] | None = None,
    lifespan: Literal["off", "auto"] = "off",
) -> HttpServer:
    """Serve HTTP and WebSocket on each `(host, port)`, port 0 = a free one.

    `certificate` is a PEM certificate chain and its key: TLS on all ports. `lifespan` "auto" tells the app when it starts and ends. Raises
    `RuntimeFailToStart`, and `FlowError` for arguments in `settings.uvicorn_kwargs` that uvicorn does not know.
    """
    config = _config(app, settings, certificate, lifespan)
    sockets = _bind(addresses, settings.held)
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=sockets))
    while not server.started:
        if task.done():
            await task
            raise RuntimeFailToStart("the HTTP server ended while it started")
        await asyncio.sleep(_STARTUP_POLL_S)
    patience = cut_slow_clients(server.server_state.connections, settings.header_timeout_s, settings.body_timeout_s)
    return HttpServer(app, server, sockets, task, asyncio.create_task(patience, name="slow clients"))


def _config(app: App, settings: GatewaySettings, certificate: tuple[Path, Path] | None, lifespan: str) -> uvicorn.Config:
    given = dict(settings.uvicorn_kwargs)
    _check(given)
    if given.get("http") in ("auto", "httptools"):
        del given["http"]  # which is what ours is
    ours: dict[str, Any] = {
        "http": HttpConnection,
        "interface": "asgi3",
        "ws": SocketConnection,
        "ws_max_size": settings.max_request_bytes,
        "ws_per_message_deflate": settings.compression != "none",  # its buffers are more than half of what an idle socket costs
        "lifespan": lifespan,
        "log_config": None,
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": _KEEP_ALIVE_S,
        "backlog": _BACKLOG,
        "ssl_certfile": certificate[0] if certificate else None,
        "ssl_keyfile": certificate[1] if certificate else None,
        "ssl_ca_certs": settings.ssl_ca if certificate else None,
        "ssl_cert_reqs": ssl.CERT_REQUIRED if settings.ssl_ca and certificate else ssl.CERT_NONE,
    }
    try:
        config = uvicorn.Config(app, **{**ours, **given})
        config.load()
    except (TypeError, ValueError, KeyError, ImportFromStringError) as error:
        raise FlowError(f"gateway: uvicorn_kwargs: {error}") from error
    return config


def _check(given: dict[str, object]) -> None:
    known = inspect.signature(uvicorn.Config).parameters.keys() - _OURS
    for name in given:
        if name in _OURS:
            raise FlowError(f"gateway: uvicorn_kwargs: {name} is decided by the gateway's own arguments")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise FlowError(f"gateway: uvicorn_kwargs: uvicorn has no {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))


def _bind(addresses: Iterable[tuple[str, int]], held: Mapping[str, int]) -> list[socket.socket]:
    """A socket for each address, which may be one that the supervisor `held` for this process and those before and after it."""
    sockets: list[socket.socket] = []
    for host, port in addresses:
        try:
            inherited = held.get(f"{host}:{port}")
            sockets.append(_bound(host, port) if inherited is None else socket.socket(fileno=os.dup(inherited)))
            sockets[-1].listen(_BACKLOG)  # now, since another may be bound to the port until one of both listens
        except OSError as error:
            for opened in sockets:
                opened.close()
            raise RuntimeFailToStart(f"HTTP cannot listen on {host}:{port}: {error.strerror or error}") from error
        sockets[-1].setblocking(False)
    return sockets


def _bound(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    return listening
