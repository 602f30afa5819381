"""Everything that may be configured by environment (`STREAMFLOW_*`) or flag, typed, read once and passed down."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEFAULT_BROKER_URL = "nats://127.0.0.1:4222"
Durability = Literal["default", "fsync", "memory"]


class BrokerSettings(BaseSettings):
    """How to reach NATS, and the bounds that every role keeps."""

    model_config = SettingsConfigDict(env_prefix="STREAMFLOW_", extra="ignore", populate_by_name=True)

    broker_url: str = Field(DEFAULT_BROKER_URL, description="one URL or several with commas between")
    broker_credentials: str | None = Field(
        None, description="seed or credentials file of a NATS user, or the folder that `streamflow auth generate` wrote"
    )
    tls_ca: str | None = Field(None, description="certificate authority of the broker")
    durability: Durability = Field(
        "default", description="fsync: on the disk before it counts; default: survives the broker's end, not a power cut; memory: neither"
    )
    monitoring_url: str | None = Field(
        None, description="where the monitoring of the broker answers, for `streamflow doctor`; default: its host, port 8222"
    )
    stream_replicas: int = Field(1, ge=1, le=5, description="copies of each stream in a broker cluster")
    max_queue_bytes: int = Field(256 << 20, gt=0, description="bytes waiting per executor before requests are refused (429)")
    max_queue_messages: int = Field(1_000_000, gt=0, description="requests waiting per executor before requests are refused (429)")
    inline_bytes: int = Field(512 * 1024, gt=0, description="bodies above this go through the object store")
    max_request_bytes: int = Field(256 << 20, gt=0, description="largest request accepted (413 above)")
    blob_ttl_s: float = Field(
        3600.0, gt=0, description="seconds after its deadline that parts and large bodies of a request are kept at most"
    )
    keep_s: float = Field(7 * 86400.0, ge=1, description="seconds that inputs of jobs and stored results are kept")
    max_job_bytes: int = Field(512 << 20, gt=0, description="bytes of job inputs, and of stored results, before more are refused")
    max_log_bytes: int = Field(
        1 << 30, gt=0, description="bytes of writes of a stateful executor behind its snapshots before more are refused"
    )
    ack_wait_s: float = Field(5.0, gt=0, description="seconds without a sign of life after which a request goes to another replica")
    max_deliver: int = Field(5, ge=1, description="worker deaths on one request before it is quarantined")
    connect_wait_s: float = Field(30.0, gt=0, description="seconds a starting role waits for the broker")


def _list_of(value: object) -> object:
    """`STREAMFLOW_PY_MODULES=a.py,b.py`."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class WorkerSettings(BrokerSettings):
    """One replica of one executor."""

    uses: str = Field("", description="executor: exec.yml, module.Class, or inline YAML")
    flow: str = "default"
    name: str = Field("", description="executor name in the flow; default: metas.name or the class")
    flow_version: str = Field("", description="definition of the flow to wait for; default: the current one")
    replica: int = Field(0, ge=0, description="number of this replica, for names and logs")
    shard: int = Field(-1, ge=-1, description="shard this replica holds; -1 = not sharded")
    stateful: bool = Field(False, description="refuse to start unless the flow says that the executor is stateful")
    uses_with: dict[str, object] = {}
    uses_metas: dict[str, object] = {}
    uses_requests: dict[str, str] = {}
    uses_dynamic_batching: dict[str, dict[str, object]] = {}
    py_modules: Annotated[list[str], NoDecode] = []
    workspace: str | None = None
    exit_on_exceptions: list[str] = Field([], description="exception classes after which the worker ends, so that it is restarted")
    output_array_type: str | None = Field(None, description="numpy or torch: what tensors are turned into before the next hop")
    concurrency: int = Field(64, ge=1, description="requests that run at the same time in async endpoints; sync ones run one by one")
    drain_s: float = Field(30.0, gt=0, description="seconds a stopping worker may take to finish what runs")
    snapshot_every: int = Field(10_000, ge=1, description="writes of a stateful executor after which its state is saved and their log cut")
    snapshot_every_s: float = Field(300.0, gt=0, description="seconds after which its state is saved when there was any write")

    @field_validator("py_modules", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _list_of(value)


class Listen(BaseSettings):
    """One protocol on one port."""

    protocol: Literal["http", "grpc", "websocket"]
    host: str = "127.0.0.1"
    port: int = Field(ge=0, le=65535)


class GatewaySettings(BrokerSettings):
    """One gateway: the flow it serves and where it listens."""

    flow: str = "default"
    listen: list[Listen] = []
    held: dict[str, int] = Field({}, description="descriptors, by host:port, of sockets that this process inherited")
    timeout_send: float | None = Field(None, description="milliseconds a request may take (Jina's name and unit); None = no limit")
    prefetch: int = Field(1000, ge=0, description="requests in flight per client stream; 0 = no limit")
    title: str = "streamflow"
    description: str = ""
    cors: bool = False
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_ca: str | None = Field(None, description="authority whose certificates clients must show (mutual TLS)")
    auth_file: str | None = Field(None, description="who may call: tokens, JWT issuers, certificates, limits")
    allow_anonymous: bool = Field(False, description="let callers of other machines in without asking who they are")
    fair_in_flight: int = Field(
        0, ge=0, description="requests in the flow at a time; the others wait at the gateway and tenants take turns; 0 = no limit"
    )
    allowed_origins: Annotated[list[str], NoDecode] = Field([], description="origins of web pages that may call and open sockets")
    header_timeout_s: float = Field(10.0, gt=0, description="seconds that the head of an HTTP request may take to arrive (408)")
    body_timeout_s: float = Field(30.0, gt=0, description="seconds that a body may take, besides one for each KiB (408)")
    admin_port: int | None = Field(
        None, ge=0, le=65535, description="port of health, readiness and status alone; the others then lack them"
    )
    admin_host: str | None = Field(None, description="address of the admin port; None = that of the first protocol")
    no_debug_endpoints: bool = Field(False, description="HTTP without /status and /post, gRPC without _status")
    no_crud_endpoints: bool = Field(False, description="HTTP without /index, /search, /update and /delete")
    expose_graphql_endpoint: bool = Field(False, description="HTTP with /graphql (extra streamflow[graphql])")
    expose_endpoints: dict[str, dict[str, object]] = Field({}, description="endpoint to path, methods, summary, tags ... of an HTTP route")
    compression: Literal["none", "gzip", "deflate"] = Field("none", description="of answers, where the client accepts it")
    uvicorn_kwargs: dict[str, object] = Field({}, description="further arguments of uvicorn.Config")
    grpc_server_options: dict[str, object] = Field({}, description="further gRPC options, e.g. grpc.keepalive_time_ms")
    drain_s: float = Field(30.0, gt=0)

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _list_of(value)
