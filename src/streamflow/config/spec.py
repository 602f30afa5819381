"""`FlowSpec`: everything needed to run a flow, frozen and picklable (cloudpickle where `uses` is a class of a script)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from streamflow.broker.flow import Graph

Uses = str | type | Mapping[str, Any] | None
TIMEOUT_READY_MS = 600_000  # -1 = for ever


@dataclass(frozen=True, slots=True)
class Origin:
    """How a flow was read from its file: `kind` (Flow or Deployment) was asked to load `path` with `context` and `overrides`, and its
    gateway was configured with `gateway`."""

    kind: str
    path: str
    context: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    gateway: Mapping[str, Any] = field(default_factory=dict)


class ListenAt(NamedTuple):
    """One protocol ("grpc", "http" or "websocket") on one port."""

    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class ExecutorSpec:
    """What starts the workers of one executor of a flow: `replicas` processes for each of `shards`.

    `uses`: None = the no-op executor; a class; a mapping in the form of `exec.yml` (`jtype`, `with`, `py_modules` ...); or text as the user
    wrote it (`module.Class`, a class name with `py_modules`, inline YAML, `docker://...`). A file in `uses` or `py_modules` is an absolute
    path here; other relative paths start at `folder`. `options` holds all else under Jina's names (stateful, volumes, tracing ...).
    """

    name: str
    uses: Uses = None
    uses_with: Mapping[str, Any] = field(default_factory=dict)
    uses_metas: Mapping[str, Any] = field(default_factory=dict)
    uses_requests: Mapping[str, str] = field(default_factory=dict)
    uses_dynamic_batching: Mapping[str, Any] = field(default_factory=dict)
    py_modules: tuple[str, ...] = ()
    extra_search_paths: tuple[str, ...] = ()
    replicas: int = 1
    shards: int = 1
    concurrency: int | None = None  # None = the worker's own default
    env: Mapping[str, str] = field(default_factory=dict)
    workspace: str | None = None
    timeout_ready_ms: int = TIMEOUT_READY_MS
    folder: Path = Path()
    where: str = ""  # "flow.yml:12: executors[1]", for errors
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """Where and how a flow's gateway listens. Ports are chosen already, never 0."""

    listen: tuple[ListenAt, ...]
    host: str = "0.0.0.0"
    prefetch: int = 1000  # requests in flight per client stream, 0 = no limit
    timeout_send_ms: float | None = None
    title: str | None = None
    description: str | None = None
    cors: bool = False
    no_debug_endpoints: bool = False
    no_crud_endpoints: bool = False
    expose_graphql_endpoint: bool = False
    expose_endpoints: Mapping[str, Any] = field(default_factory=dict)  # endpoint -> {path, methods, summary, tags ...}
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_ca: str | None = None
    auth_file: str | None = None
    allow_anonymous: bool = False
    fair_in_flight: int = 0  # requests in the flow at a time, tenants in turn; 0 = no limit
    allowed_origins: tuple[str, ...] = ()
    header_timeout_s: float | None = None  # None = the gateway's own default
    body_timeout_s: float | None = None
    uvicorn_kwargs: Mapping[str, Any] = field(default_factory=dict)
    grpc_server_options: Mapping[str, Any] = field(default_factory=dict)
    compression: str = "none"  # none, gzip, deflate
    admin_port: int | None = None
    admin_host: str | None = None
    uses: str | type | None = None  # class of one's own: the class, its name, "module.Class"; None = the built-in gateway
    uses_with: Mapping[str, Any] = field(default_factory=dict)
    py_modules: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_ready_ms: int = TIMEOUT_READY_MS
    folder: Path = Path()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FlowSpec:
    """A checked flow. `executors` are those to start here, in flow order; external ones are in `graph` only.

    `broker_url` None = start an own server, which keeps its data in `store` (None = a temporary folder). `sources` are the files that the
    flow was read from, for `reload`; `origin` is how, None when it was changed afterwards.
    """

    graph: Graph
    executors: tuple[ExecutorSpec, ...]
    gateway: GatewaySpec
    broker_url: str | None = None
    store: Path | None = None
    durability: str | None = None  # None = as the environment says
    reload: bool = False
    sources: tuple[Path, ...] = ()
    origin: Origin | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # log_config, quiet, quiet_error, suppress_root_logging

    @property
    def name(self) -> str:
        return self.graph.flow

    @property
    def timeout_s(self) -> float | None:
        """Seconds within which everything should be ready; None = no limit."""
        limits = [self.gateway.timeout_ready_ms, *(executor.timeout_ready_ms for executor in self.executors)]
        return None if min(limits) < 0 else max(limits) / 1000
