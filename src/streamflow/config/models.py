"""Arguments of flows, gateways and executors under Jina's names, for YAML and for Python keywords alike (pydantic).

Every field may be None, which means "not set"; `given` tells what was. What the fields mean is decided in `build.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic.json_schema import SkipJsonSchema

from .kinds import Coding, Count, Env, Free, Int, JsonObject, Level, Number, Object, Polls, Port, Ports, Protocols, Texts, from_json

Given = dict[str, Any]  # arguments that were set, by field name of the models
EFFECT = "x-streamflow-effect"  # in the JSON schema of a field that does nothing when a flow runs


def without_meaning(*names: str) -> Any:
    """A field that is accepted so that files written for Jina load."""
    alias = AliasChoices(*names) if names else None
    return Field(None, validation_alias=alias, json_schema_extra={"deprecated": True, EFFECT: "accepted for Jina's files, has no effect"})


def for_export() -> Any:
    """A field that only `streamflow export` reads."""
    return Field(None, json_schema_extra={EFFECT: "kept for `streamflow export`, has no effect on local processes"})


class Arguments(BaseModel):
    """Base: unknown keys are errors, None is "not set"."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, arbitrary_types_allowed=True, protected_namespaces=())

    def given(self) -> Given:
        """What was set to something, under the field's own name."""
        return {
            name: value for name in type(self).model_fields if name in self.model_fields_set and (value := getattr(self, name)) is not None
        }


class ExecutorFile(Arguments):
    """`exec.yml`, and `uses:` as an inline mapping."""

    jtype: str = Field(description="class name, or module.Class")
    version: Free = None
    arguments: Object | None = Field(None, validation_alias=AliasChoices("with", "arguments"), description="constructor arguments")
    py_modules: Texts | None = None
    metas: Object | None = None
    requests: dict[str, str] | None = None
    uses_requests: dict[str, str] | None = None
    uses_dynamic_batching: Object | None = Field(None, validation_alias=AliasChoices("uses_dynamic_batching", "dynamic_batching"))
    workspace: str | None = None


def _uses_kind(value: object) -> str:
    if isinstance(value, type):
        return "class"
    return "inline" if isinstance(value, Mapping | ExecutorFile) else "text"


Uses = Annotated[
    Annotated[str, Tag("text")] | Annotated[ExecutorFile, Tag("inline")] | SkipJsonSchema[Annotated[type, Tag("class")]],
    Discriminator(_uses_kind),
]


class Queue(Arguments):
    """`queue:` of an executor."""

    max_deliver: Count | None = None
    ack_wait_s: float | None = Field(None, gt=0, validation_alias=AliasChoices("ack_wait_s", "ack_wait"))


class Common(Arguments):
    """Arguments that gateways and executors share, and that a flow hands down to both."""

    env: Env | None = Field(None, description="environment variables of the processes")
    workspace: str | None = Field(None, description="folder for the executor's own files")
    py_modules: Texts | None = Field(None, description="Python files to import before `uses` is looked up")
    extra_search_paths: Texts | None = Field(None, description="folders in which `uses` files are looked up")
    timeout_ready: Int | None = Field(None, ge=-1, description="milliseconds a process may take to become ready; -1 = for ever")
    timeout_send: Number | None = Field(None, ge=-1, description="milliseconds a request may take; -1 = no limit")
    retries: Int | None = Field(None, ge=-1, description="extra attempts after an exception named in `retry_on`")
    reload: bool | None = Field(None, description="start again when source files change")
    log_config: str | None = Field(None, description='logging file (handlers, level, configs), or "default"')
    log_level: Level | None = Field(None, description="debug, info, warning or error")
    quiet: bool | None = Field(None, description="log errors only")
    quiet_error: bool | None = Field(None, description="log exceptions of executors without their tracebacks")
    entrypoint: str | None = for_export()
    tracing: bool | None = without_meaning()
    traces_exporter_host: str | None = without_meaning("traces_exporter_host", "tracing_exporter_host")
    traces_exporter_port: Port | None = without_meaning("traces_exporter_port", "tracing_exporter_port")
    metrics: bool | None = without_meaning()
    metrics_exporter_host: str | None = without_meaning()
    metrics_exporter_port: Port | None = without_meaning()
    monitoring: bool | None = without_meaning()
    env_from_secret: Object | None = without_meaning()
    image_pull_secrets: Texts | None = without_meaning()
    docker_kwargs: Object | None = without_meaning()
    compression: str | None = without_meaning()
    runtime_cls: str | None = without_meaning()
    timeout_ctrl: Int | None = without_meaning()
    grpc_channel_options: Object | None = without_meaning()
    port_monitoring: Ports | None = without_meaning()
    provider: Free = without_meaning()
    provider_endpoint: str | None = without_meaning()
    pod_ports: Free = without_meaning()
    jcloud: Free = without_meaning()


class ExecutorDefaults(Common):
    """Arguments of an executor that a flow may set for all of them."""

    replicas: Count | None = Field(None, validation_alias=AliasChoices("replicas", "parallel"), description="interchangeable copies")
    shards: Count | None = Field(None, description="copies that each hold a part of the data")
    polling: Polls | None = Field(None, description="ANY or ALL, or one of them by endpoint with '*' for the others")
    no_reduce: bool | None = Field(
        None,
        validation_alias=AliasChoices("no_reduce", "disable_reduce"),
        description="hand branches over as docs_matrix instead of merged",
    )
    retry_on: Texts | None = Field(None, description="class names of exceptions after which a request is tried again")
    backoff_s: float | None = Field(
        None, gt=0, description="seconds before a request is tried again (`retry_on`), doubling with each attempt"
    )
    max_backoff_s: float | None = Field(None, gt=0, description="longest time between two attempts")
    max_deliver: Count | None = Field(None, description="worker deaths on one request before it is quarantined")
    ack_wait_s: float | None = Field(None, gt=0, description="seconds without a sign of life before another replica takes over")
    timeout_run_s: float | None = Field(None, gt=0, description="seconds after which a call that runs on ends its worker, as a crash would")
    allow_partial: bool | None = Field(None, description="at the deadline answer with the branches that came")
    concurrency: Count | None = Field(None, description="requests that run at the same time (async endpoints only)")
    stateful: bool | None = Field(None, description="every replica applies all requests of `@write` endpoints, in one order")
    snapshot_every: Count | None = Field(None, description="writes after which a stateful executor is asked for a snapshot")
    snapshot_every_s: float | None = Field(None, gt=0, description="seconds after which it is, when there was any write")
    queue: Queue | None = Field(None, description="max_deliver and ack_wait_s in a section of their own")
    volumes: Texts | None = for_export()
    gpus: str | int | None = for_export()
    disable_auto_volume: bool | None = for_export()
    allow_concurrent: bool | None = without_meaning()
    force_update: bool | None = without_meaning()
    prefer_platform: str | None = without_meaning()
    native: bool | None = without_meaning()
    install_requirements: bool | None = without_meaning()
    peer_ports: Free = without_meaning()
    raft_configuration: Object | None = without_meaning()
    output_array_type: str | None = Field(None, description="numpy or torch: what tensors are turned into before the next hop")
    exit_on_exceptions: Texts | None = Field(None, description="class names of exceptions after which the worker ends and is restarted")
    connection_list: Free = without_meaning()
    k8s_namespace: str | None = without_meaning()


class OneExecutor(ExecutorDefaults):
    """What only a single executor can have."""

    name: str | None = Field(None, description="letters, digits, '_' and '-'")
    uses: Uses | None = Field(
        None, description="executor: exec.yml, module.Class, class name with py_modules, or an inline mapping with jtype"
    )
    uses_with: Object | None = Field(None, description="constructor arguments")
    uses_metas: Object | None = None
    uses_requests: dict[str, str] | None = Field(None, description="endpoint to method name")
    uses_dynamic_batching: Object | None = Field(
        None, validation_alias=AliasChoices("uses_dynamic_batching", "dynamic_batching"), description="settings by endpoint"
    )
    when: Object | list[Object] | None = Field(None, description="only documents that pass this query reach the executor")
    external: bool | None = Field(None, description="its workers are started by somebody else")
    external_flow: str | None = Field(None, description="flow name that those workers serve under")
    external_executor: str | None = Field(None, description="executor name that those workers serve under")
    host: Texts | None = Field(
        None, description="of an external executor: the gateway before it, as host, host:port or URL; several share the load"
    )
    port: Ports | None = Field(None, description="of an external executor")
    tls: bool | None = Field(None, description="encrypt the way to an external executor")
    grpc_metadata: Object | None = Field(None, description="sent with every request to an external executor")


class ExecutorArguments(OneExecutor):
    """One item of `executors:`, or the keywords of `Flow.add`."""

    needs: Texts | None = Field(None, description="executors (or 'gateway') whose output it gets")
    floating: bool | None = Field(None, description="works on a copy and answers nobody")
    protocol: Protocols | None = Field(None, description="what the gateway of an external executor speaks; grpc when not set")
    title: str | None = without_meaning()
    description: str | None = without_meaning()
    cors: bool | None = without_meaning()
    uvicorn_kwargs: Object | None = without_meaning()
    grpc_server_options: Object | None = without_meaning()
    ssl_certfile: str | None = without_meaning()
    ssl_keyfile: str | None = without_meaning()


class ExposedRoute(Arguments):
    """An HTTP route of `expose_endpoints`; what is not `path` and `methods` goes into the OpenAPI document."""

    path: str | None = Field(None, validation_alias=AliasChoices("path", "http_path"), description="the endpoint's own name when not set")
    methods: Texts | None = Field(None, description="POST when not set")
    summary: str | None = None
    description: str | None = None
    tags: Texts | None = None
    deprecated: bool | None = None
    operation_id: str | None = None


def _routes(value: object) -> object:
    """A mapping or its JSON text; an endpoint without anything behind it is exposed as it is."""
    value = from_json(value)
    return {endpoint: entry or {} for endpoint, entry in value.items()} if isinstance(value, Mapping) else value


class GatewayDefaults(Common):
    """Arguments of a gateway that may also stand in the top `with:`, or in `Flow()` and `Deployment()`."""

    host: Texts | None = Field(None, description="address to listen on; 0.0.0.0 when not set")
    port: Ports | None = Field(None, description="one per protocol; random when not set")
    protocol: Protocols | None = Field(None, validation_alias=AliasChoices("protocol", "protocols"))
    prefetch: Int | None = Field(None, ge=0, description="requests in flight per client stream; 0 = no limit")
    title: str | None = None
    description: str | None = None
    cors: bool | None = None
    no_debug_endpoints: bool | None = Field(None, description="HTTP without /status and /post, gRPC without _status")
    no_crud_endpoints: bool | None = Field(None, description="HTTP without /index, /search, /update and /delete")
    expose_graphql_endpoint: bool | None = Field(
        None,
        validation_alias=AliasChoices("expose_graphql_endpoint", "expose_graphql_endpont"),
        description="HTTP with /graphql (extra streamflow[graphql])",
    )
    expose_endpoints: (
        Annotated[dict[str, ExposedRoute], BeforeValidator(_routes, json_schema_input_type=str | dict[str, ExposedRoute | None])] | None
    ) = Field(None, description="endpoint to the HTTP route that serves it")
    uvicorn_kwargs: Object | None = Field(None, description="further arguments of uvicorn's Config")
    grpc_server_options: JsonObject | None = Field(None, description="further gRPC options, which win over the gateway's own")
    compression: Coding | None = Field(None, description="of answers, where the client accepts it")
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_ca: str | None = Field(None, description="authority whose certificates clients must show (mutual TLS)")
    auth_file: str | None = Field(None, description="who may call: tokens, JWT issuers, certificates, limits (docs/security.md)")
    allow_anonymous: bool | None = Field(None, description="let callers of other machines in without asking who they are")
    fair_in_flight: int | None = Field(None, ge=0, description="requests in the flow at a time; the others wait, and tenants take turns")
    allowed_origins: Texts | None = Field(None, description="origins of web pages that may call and open sockets")
    header_timeout_s: float | None = Field(None, gt=0, description="seconds that the head of an HTTP request may take to arrive")
    body_timeout_s: float | None = Field(None, gt=0, description="seconds that a body may take, besides one for each KiB")
    admin_port: Port | None = Field(None, description="health, readiness and status on a port of their own, and on no other")
    admin_host: str | None = Field(None, description="address of the admin port; that of the others when not set")
    port_expose: Port | None = without_meaning()
    proxy: bool | None = without_meaning()


class GatewayArguments(GatewayDefaults):
    """`gateway:`, or the keywords of `Flow.config_gateway`."""

    name: str | None = None
    uses: Uses | None = Field(None, description="own gateway class, as for an executor")
    uses_with: Object | None = Field(None, validation_alias=AliasChoices("uses_with", "with"), description="its constructor arguments")
    replicas: Count | None = without_meaning()
    floating: bool | None = without_meaning()
    stateful: bool | None = without_meaning()
    graph_description: Free = without_meaning()
    graph_conditions: Free = without_meaning()
    deployments_addresses: Free = without_meaning()
    deployments_metadata: Free = without_meaning()
    deployments_no_reduce: Free = without_meaning()


class GatewayFile(GatewayArguments):
    """`config.yml` of a gateway class: `!MyGateway`, or `jtype: MyGateway`."""

    jtype: str = Field(description="class name, or module.Class")
    version: Free = None
    uses: SkipJsonSchema[None] = None


class Broker(Arguments):
    """`broker:`: where the queue is."""

    url: str | None = Field(None, description="NATS with JetStream; an own server is started when not set")
    store: str | None = Field(None, description="folder in which the own server keeps its data; a temporary one when not set")


class JournalArguments(Arguments):
    """`journal:`: how much of the online requests is kept for replay."""

    keep_s: float | None = Field(None, ge=1, description="seconds; a week when not set")
    max_bytes: Count | None = Field(None, description="bytes, the oldest go first; 1 GiB when not set")


def _journal(value: object) -> object:
    """`true` stands for a journal with the default bounds, `false` for none."""
    return (JournalArguments() if value else None) if isinstance(value, bool) else value


Journal = Annotated[JournalArguments | None, BeforeValidator(_journal, json_schema_input_type=bool | JournalArguments | None)]


def _broker(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class Served(GatewayDefaults):
    """What a flow and a deployment have besides gateway and executors."""

    name: str | None = None
    broker: Annotated[Broker, BeforeValidator(_broker, json_schema_input_type=str | Broker)] | None = Field(
        None, validation_alias=AliasChoices("broker", "nats")
    )
    durability: Literal["default", "fsync", "memory"] | None = Field(
        None, description="fsync: requests are on the disk before they count; an own broker does so, `streamflow doctor` proves any"
    )
    journal: Journal = Field(None, description="keep a copy of each online request for `streamflow replay`: true, or its bounds")
    keep_results: float | None = Field(
        None, ge=1, description="seconds for which every online answer can be fetched again; those that ask for it when not set"
    )
    suppress_root_logging: bool | None = Field(None, description="log nothing of other libraries")
    inspect: str | None = without_meaning()
    asyncio: bool | None = Field(None, description="`post` is an async generator")


class FlowArguments(Served, ExecutorDefaults):
    """`with:` of a flow, or the keywords of `Flow()`. Handed down to the gateway and, but for gateway matters, to all executors."""

    uses: str | None = Field(None, description="a flow file")


class DeploymentArguments(Served, OneExecutor):
    """`with:` of a deployment, or the keywords of `Deployment()`: one executor and its gateway."""

    include_gateway: bool | None = without_meaning()


class FlowFile(Arguments):
    """A whole flow file."""

    jtype: Literal["Flow", "AsyncFlow"] = "Flow"
    version: Free = None
    name: str | None = None
    arguments: FlowArguments | None = Field(None, validation_alias=AliasChoices("with", "arguments"))
    gateway: GatewayArguments | None = None
    executors: list[ExecutorArguments] | None = None
    broker: Annotated[Broker, BeforeValidator(_broker, json_schema_input_type=str | Broker)] | None = Field(
        None, validation_alias=AliasChoices("broker", "nats")
    )
    jcloud: Free = without_meaning()


class DeploymentFile(DeploymentArguments):
    """A whole deployment file: arguments under `with:`, at the top, or both (the top wins)."""

    jtype: Literal["Deployment"] = "Deployment"
    version: Free = None
    arguments: DeploymentArguments | None = Field(None, validation_alias=AliasChoices("with", "arguments"))
    gateway: GatewayArguments | None = None
