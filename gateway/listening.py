"""Opens the ports of a gateway: the protocol servers that the settings name, and the admin port.

`open_servers` is the built-in way to serve a flow; a gateway of the user's own takes its place by the same signature (`Open`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from streamflow.broker.lifecycle import Stop
from streamflow.broker.settings import GatewaySettings, Listen

from .dispatch import Dispatcher
from .jobs_desk import JobDesk
from .jobs_quotas import LimitedJobDesk
from .quotas import LimitedDispatcher
from .state_desk import StateDesk

ADMIN = "admin"
Info = Callable[[], Mapping[str, str]]  # further lines of `GET /status`


class Server(Protocol):
    """One running protocol server."""

    async def stop(self, grace_s: float) -> None:
        """Answer what is in flight for up to `grace_s` seconds, then close. May be called twice."""


@dataclass(slots=True)
class Listening:
    """Open servers, and where each protocol is to be found."""

    servers: list[Server] = field(default_factory=list)
    addresses: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add(self, server: Server, wanted: list[Listen], ports: list[int]) -> None:
        self.servers.append(server)
        self.addresses |= {listen.protocol: (listen.host, port) for listen, port in zip(wanted, ports, strict=True)}


# Opens what the settings name; returns once clients can connect. Sets `Stop` when a server ends by itself. Raises `RuntimeFailToStart`.
Open = Callable[[Dispatcher, GatewaySettings, Info, Stop], Awaitable[Listening]]


async def open_servers(dispatcher: Dispatcher, settings: GatewaySettings, info: Info, stop: Stop) -> Listening:
    """The built-in servers. Raises `RuntimeFailToStart` for a port that is taken; nothing stays open then."""
    opened = Listening()
    jobs = _job_desk(dispatcher, stop)
    try:
        if wanted := [listen for listen in settings.listen if listen.protocol != "grpc"]:
            await _open_http(opened, wanted, dispatcher, settings, info, jobs)
        if wanted := [listen for listen in settings.listen if listen.protocol == "grpc"]:
            await _open_grpc(opened, wanted, dispatcher, settings, info, jobs)
    except BaseException:
        for server in opened.servers:
            await server.stop(0.0)
        raise
    return opened


def _job_desk(dispatcher: Dispatcher, stop: Stop) -> JobDesk:
    bus, flow = dispatcher.bus, dispatcher.graph.flow
    return LimitedJobDesk(dispatcher.quotas, bus, flow, stop) if isinstance(dispatcher, LimitedDispatcher) else JobDesk(bus, flow, stop)


async def open_admin(dispatcher: Dispatcher, settings: GatewaySettings, info: Info, stop: Stop) -> Listening:
    """The server of the admin port. Raises `RuntimeFailToStart`."""
    # FastAPI and uvicorn: 0.3 s that a gRPC gateway does not pay.
    from .admin import create_admin
    from .http_server import serve_http

    host = settings.admin_host or (settings.listen[0].host if settings.listen else "127.0.0.1")
    app = create_admin(dispatcher, settings, stop, info=info)
    server = await serve_http(app, settings, [(host, settings.admin_port or 0)])
    return Listening([server], {ADMIN: (host, server.ports[0])})


async def _open_http(
    opened: Listening, wanted: list[Listen], dispatcher: Dispatcher, settings: GatewaySettings, info: Info, jobs: JobDesk
) -> None:
    from .http_app import create_app  # FastAPI and uvicorn, as above
    from .http_server import serve_http
    from .jobs_http import jobs_router

    # HTTP and WebSocket may share a port: every listener serves both.
    pairs = list(dict.fromkeys((listen.host, listen.port) for listen in wanted if listen.port))
    pairs += [(listen.host, 0) for listen in wanted if not listen.port]
    app = create_app(dispatcher, settings, info=info, routers=[jobs_router(jobs, settings.max_request_bytes)])
    server = await serve_http(app, settings, pairs, certificate=certificate_of(settings))
    free = iter(server.ports[len(pairs) - sum(not listen.port for listen in wanted) :])
    opened.add(server, wanted, [listen.port or next(free) for listen in wanted])


async def _open_grpc(
    opened: Listening, wanted: list[Listen], dispatcher: Dispatcher, settings: GatewaySettings, info: Info, jobs: JobDesk
) -> None:
    from .grpc_server import GrpcServer  # grpc: 0.1 s and 20 MB that an HTTP gateway does not pay

    states = StateDesk(dispatcher.bus, lambda: dispatcher.graph)
    server = GrpcServer(dispatcher, settings, info=info, certificate=certificate_of(settings), jobs=jobs, states=states)
    opened.add(server, wanted, await server.start([(listen.host, listen.port) for listen in wanted]))


def certificate_of(settings: GatewaySettings) -> tuple[Path, Path] | None:
    """PEM certificate chain and key, None = no TLS."""
    return (Path(settings.ssl_certfile), Path(settings.ssl_keyfile)) if settings.ssl_certfile and settings.ssl_keyfile else None
