"""A uvicorn server inside our own process: several ports, no signal handlers of its own, a stop that drains."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from streamflow.broker.errors import RuntimeFailToStart
from streamflow.broker.settings import GatewaySettings

from .http_app import HttpApp

_KEEP_ALIVE_S = 75  # seconds an idle connection stays open
_BACKLOG = 2048
_STARTUP_POLL_S = 0.005
_LAST_WORDS_S = 0.5  # for the refusals of a stop that ran out of time


class _Corked:
    """A transport that writes once per loop turn: uvicorn writes head and body of an answer apart, and each write is a system call."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def writelines(self, lines: Iterable[bytes]) -> None:
        self.write(b"".join(lines))

    def _flush(self) -> None:
        if self._waiting:
            data = self._waiting[0] if len(self._waiting) == 1 else b"".join(self._waiting)
            self._waiting.clear()
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Corked(transport, self.loop))  # type: ignore[arg-type]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the process's business, not one server's


class HttpServer:
    """A running server; `ports` are the real ones, in the order asked for."""

    def __init__(self, app: HttpApp, server: uvicorn.Server, sockets: list[socket.socket], task: asyncio.Task[None]) -> None:
        self._app = app
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
        self._server.should_exit = True
        if not await self._ended(until - asyncio.get_running_loop().time()):
            self._app.give_up()
            if not await self._ended(_LAST_WORDS_S):
                self._break()
        await self._task

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
    app: HttpApp,
    settings: GatewaySettings,
    addresses: Iterable[tuple[str, int]],
    *,
    certificate: tuple[Path, Path] | None = None,
) -> HttpServer:
    """Serve HTTP and WebSocket on each `(host, port)`, port 0 = a free one. Raises `RuntimeFailToStart`.

    `certificate` is a PEM certificate chain and its key: TLS on all ports.
    """
    sockets = _bind(addresses)
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="websockets-sansio",
        ws_max_size=settings.max_request_bytes,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        backlog=_BACKLOG,
        ssl_certfile=certificate[0] if certificate else None,
        ssl_keyfile=certificate[1] if certificate else None,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=sockets))
    while not server.started:
        if task.done():
            await task
            raise RuntimeFailToStart("the HTTP server ended while it started")
        await asyncio.sleep(_STARTUP_POLL_S)
    return HttpServer(app, server, sockets, task)


def _bind(addresses: Iterable[tuple[str, int]]) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    for host, port in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        sockets.append(listening)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
        except OSError as error:
            for opened in sockets:
                opened.close()
            raise RuntimeFailToStart(f"HTTP cannot listen on {host}:{port}: {error.strerror or error}") from error
        listening.setblocking(False)
    return sockets
