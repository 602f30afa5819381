"""What `Flow` and `Deployment` share: addresses, the implicit client, and starting, blocking and closing the processes of a flow."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from streamflow.broker.errors import StreamflowError

from .config.addresses import host_of, ports_of, protocols_of
from .config.check import check_keywords
from .config.definition import Definition
from .config.models import GatewayArguments
from .config.ports import choose
from .config.spec import FlowSpec
from .export.flowchart import write_flowchart

log = logging.getLogger(__name__)

T = TypeVar("T")
EXPORTED_PORT = 8080  # and those that follow, in files for containers
_EVERYWHERE = frozenset({"0.0.0.0", "::", ""})


class StopEvent(Protocol):
    """`threading.Event` or `multiprocessing.Event`."""

    def wait(self, timeout: float | None = None) -> bool: ...


class Runtime(Protocol):
    """The processes of one flow (`runtime.LocalRuntime`)."""

    @property
    def running(self) -> bool: ...

    @property
    def gateway_addresses(self) -> dict[str, tuple[str, int]]: ...

    def start(self, timeout_s: float | None = None) -> None: ...

    def wait(self, stop_event: StopEvent | None = None) -> None: ...

    def stop(self) -> None: ...


class Orchestration:
    """Base of `Flow` and `Deployment`: a definition, and the runtime while it is started.

    Not to be shared between threads while starting or closing; `post` may be called from several.
    """

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._runtime: Runtime | None = None
        self._client: Any = None  # of `post`, kept while the flow runs
        self._ports: list[int] = []

    @property
    def definition(self) -> Definition:
        """The checked arguments; not a copy."""
        return self._definition

    @property
    def name(self) -> str:
        return self._definition.name

    @property
    def port(self) -> int | list[int]:
        """The gateway's port, a list when there are several protocols; a free one is chosen at the first look when none was given."""
        return _one_or_list(self._chosen_ports())

    @property
    def protocol(self) -> str | list[str]:
        return _one_or_list(protocols_of(self._definition.complete_gateway()))

    @property
    def host(self) -> str:
        return host_of(self._definition.complete_gateway())

    @property
    def address(self) -> tuple[str, str, int]:
        """Protocol, host and port that a client on this machine connects to: the first protocol's."""
        protocol = protocols_of(self._definition.complete_gateway())[0]
        host, port = self.host, self._chosen_ports()[0]
        if self._runtime is not None:
            host, port = self._runtime.gateway_addresses.get(protocol, (host, port))
        return protocol, "127.0.0.1" if host in _EVERYWHERE else host, port

    def _chosen_ports(self) -> list[int]:
        """One per protocol. Chosen once, so that the address stays the same over restarts."""
        given = ports_of(self._definition.complete_gateway())
        if len(self._ports) != len(given) or any(port not in (0, chosen) for port, chosen in zip(given, self._ports, strict=True)):
            self._ports = choose(given, self.host)
        return self._ports

    def config_gateway(self, **arguments: Any) -> Self:
        """Set arguments of the gateway (`gateway:` in YAML); later calls win over earlier ones. Raises `FlowError`."""
        checked = check_keywords(GatewayArguments, arguments, "gateway").given()
        ports_of(self._definition.complete_gateway() | checked)
        self._definition.gateway |= checked
        if (origin := self._definition.origin) is not None:
            self._definition.origin = replace(origin, gateway={**origin.gateway, **arguments})
        return self

    def expose_endpoint(self, exec_endpoint: str, path: str | None = None, **details: Any) -> Self:
        """Serve `exec_endpoint` over HTTP at `path` (default: the same), with OpenAPI `details` such as summary, tags and methods."""
        exposed = self._definition.complete_gateway().get("expose_endpoints", {})
        entry = details if path is None else {"path": path, **details}
        return self.config_gateway(expose_endpoints={**exposed, exec_endpoint: entry})

    def spec(self) -> FlowSpec:
        """The checked, frozen form that the runtime starts. Raises `FlowError`."""
        return self._definition.spec(self._chosen_ports())

    def start(self) -> Self:
        """Start broker, workers and gateway, and return when all are ready. Harmless when it runs.

        Raises `FlowError` for a definition that cannot work and `RuntimeFailToStart` naming the executor that did not come up.
        """
        if self._runtime is None:
            spec = self.spec()
            runtime = self._make_runtime(spec)
            runtime.start(None)  # the supervisor keeps the limit of each process
            self._runtime = runtime
        return self

    def _make_runtime(self, spec: FlowSpec) -> Runtime:
        # Lazy: defining or exporting a flow needs none of what starts processes.
        from .runtime import LocalRuntime

        return LocalRuntime(spec)

    def close(self) -> None:
        """Drain and end every process: what runs is finished, floating executors included. Harmless when nothing runs."""
        runtime, self._runtime = self._runtime, None
        client, self._client = self._client, None
        if client is not None:
            client.close()
        if runtime is not None:
            runtime.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def block(self, stop_event: StopEvent | None = None) -> None:
        """Serve until `stop_event` is set or Ctrl-C. Raises `RuntimeFailToStart` when the flow ends by itself."""
        if self._runtime is None:
            raise StreamflowError(f"{type(self).__name__.lower()} {self.name!r} is not started: use it in a `with` block, or call start()")
        with contextlib.suppress(KeyboardInterrupt):
            self._runtime.wait(stop_event)

    def client(self, **arguments: Any) -> Any:
        """A new client for this flow's gateway (`streamflow.client.Client`), for tests and debugging."""
        # Lazy: brings docarray and gRPC.
        from .client import Client

        protocol, host, port = self.address
        tls = bool(self._definition.complete_gateway().get("ssl_certfile"))
        options: dict[str, Any] = {"asyncio": bool(self._definition.shared.get("asyncio")), **({"tls": True} if tls else {}), **arguments}
        return Client(host, port, protocol, **options)

    def post(self, on: str, inputs: Any = None, **arguments: Any) -> Any:
        """Send one request through the gateway, with the arguments of `Client.post`; with `asyncio=True` an async generator."""
        if self._definition.shared.get("asyncio"):
            return self.client().post(on, inputs, **arguments)
        if self._client is None:
            self._client = self.client()
        return self._client.post(on, inputs, **arguments)

    def _is_ready(self) -> bool:
        if self._runtime is None or not self._runtime.running:
            return False
        with self.client(asyncio=False) as client:
            return bool(client.is_flow_ready())

    def save_config(self, path: str | Path) -> None:
        """Write the YAML that `load_config` reads back. Raises `FlowError` for arguments that are no plain values."""
        path = Path(path)
        text = self._yaml(path.resolve().parent)
        path.write_text(text, encoding="utf-8")

    def plot(self, output: str | Path = "flow.svg", *, vertical_layout: bool = False) -> Self:
        """Draw the executors and their order into `output`: .svg, .png, or Mermaid text as .mmd or .md. Raises `InvalidInput`."""
        write_flowchart(self._definition.graph(), output, vertical=vertical_layout)
        return self

    def to_docker_compose_yaml(
        self, output_path: str | Path = "docker-compose.yml", network_name: str = "", *, include_gateway: bool = True
    ) -> None:
        """Write a Compose file with broker, gateway (port 8080 when none was given) and a service or more for each executor.

        `uses: docker://image` is that image; other executors are built of the folder of their files. Raises `FlowError`.
        """
        # Lazy: brings pydantic-settings, 0.1 s that a flow in a script does not pay.
        from .export.docker_compose import compose_file

        path = Path(output_path)
        given = ports_of(self._definition.complete_gateway())
        free = (port for port in count(EXPORTED_PORT) if port not in given)
        spec = self._definition.spec([port or next(free) for port in given])
        file = compose_file(spec, path.resolve().parent, network=network_name, include_gateway=include_gateway)
        path.write_text(file.to_yaml(), encoding="utf-8")

    def _yaml(self, folder: Path) -> str:
        raise NotImplementedError


def _one_or_list(values: list[T]) -> T | list[T]:
    return values[0] if len(values) == 1 else list(values)
