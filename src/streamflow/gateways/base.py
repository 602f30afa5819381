"""`Gateway`: the base class of gateways of one's own."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import SimpleNamespace

from streamflow.broker.settings import GatewaySettings

from .streamer import Executors, GatewayStreamer

_TOLD = (
    "flow", "prefetch", "timeout_send", "title", "description", "cors", "no_debug_endpoints", "no_crud_endpoints",
    "expose_graphql_endpoint", "expose_endpoints", "compression", "uvicorn_kwargs", "grpc_server_options", "ssl_certfile", "ssl_keyfile",
    "ssl_ca", "auth_file", "allow_anonymous", "fair_in_flight", "allowed_origins", "admin_port", "max_request_bytes", "drain_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the gateway process gives to the gateway in it."""

    settings: GatewaySettings
    streamer: GatewayStreamer


class Gateway(ABC):
    """A server of any kind before the executors of a flow: `Flow().config_gateway(uses=MyGateway, port=8080, protocol="http")`.

    `setup_server` is awaited first, then `run_server` runs until `shutdown`; all three on the event loop of the gateway process. A subclass
    with an `__init__` takes `**kwargs` and calls `super().__init__(**kwargs)`, after which all attributes are there. Health checks are the
    server's own matter: `GET /` with 200, or the gRPC health service, on the first port.
    """

    def __init__(self, *, runtime: Runtime) -> None:
        """`runtime` is given by the gateway process."""
        self._settings = runtime.settings
        self.streamer = runtime.streamer
        self.runtime_args = runtime_args_of(runtime.settings)
        self.logger = logging.getLogger(f"streamflow.gateways.{type(self).__name__}")

    @abstractmethod
    async def setup_server(self) -> None:
        """Make the server, for `self.host` and `self.port`, and whatever it needs."""

    @abstractmethod
    async def run_server(self) -> None:
        """Serve until `shutdown`. To return, or to raise, earlier ends the process."""

    @abstractmethod
    async def shutdown(self) -> None:
        """Stop the server; requests that are open should be answered first. What they asked the executors for still arrives."""

    @property
    def executor(self) -> Executors:
        """Executors by name, to be asked one by one: `await self.executor["encoder"].post(on="/", inputs=docs)`."""
        return self.streamer.executor

    @property
    def is_listening(self) -> bool:
        """Whether connections are taken: asked where ports are inherited, which are open already. A class that listens on such says so."""
        return False

    @property
    def name(self) -> str:
        return str(self.runtime_args.name)

    @property
    def host(self) -> str:
        """Address to listen on."""
        return str(self.runtime_args.host)

    @property
    def port(self) -> int:
        """The first port."""
        return self.ports[0]

    @property
    def ports(self) -> list[int]:
        """Ports to listen on, one for each of `protocols`."""
        return list(self.runtime_args.port)

    @property
    def protocols(self) -> list[str]:
        return list(self.runtime_args.protocol)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{each}:{port}' for each, port in zip(self.protocols, self.ports, strict=True))})"


def runtime_args_of(settings: GatewaySettings) -> SimpleNamespace:
    """What a gateway may know of its settings under Jina's names: nothing of the broker, and no secrets."""
    listen = settings.listen
    return SimpleNamespace(
        **{name: getattr(settings, name) for name in _TOLD},
        name="gateway",
        host=listen[0].host if listen else "127.0.0.1",
        port=[each.port for each in listen],
        protocol=[each.protocol for each in listen],
    )
