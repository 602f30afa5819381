"""Everything that may be configured by environment (`STREAMFLOW_*`) or flag, typed, read once and passed down."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEFAULT_BROKER_URL = "nats://127.0.0.1:4222"


class BrokerSettings(BaseSettings):
    """How to reach NATS, and the bounds that every role keeps."""

    model_config = SettingsConfigDict(env_prefix="STREAMFLOW_", extra="ignore", populate_by_name=True)

    broker_url: str = Field(DEFAULT_BROKER_URL, description="one URL or several with commas between")
    credentials: str | None = Field(None, description="path of a NATS credentials file")
    tls_ca: str | None = Field(None, description="certificate authority of the broker")
    storage: Literal["file", "memory"] = Field("file", description="where streams live; memory does not survive a broker restart")
    stream_replicas: int = Field(1, ge=1, le=5, description="copies of each stream in a broker cluster")
    max_queue_bytes: int = Field(512 << 20, gt=0, description="bytes waiting per executor before requests are refused (429)")
    max_queue_messages: int = Field(1_000_000, gt=0, description="requests waiting per executor before requests are refused (429)")
    inline_bytes: int = Field(512 * 1024, gt=0, description="bodies above this go through the object store")
    max_request_bytes: int = Field(256 << 20, gt=0, description="largest request accepted (413 above)")
    blob_ttl_s: float = Field(3600.0, gt=0, description="seconds after which an unclaimed large body is deleted")
    ack_wait_s: float = Field(5.0, gt=0, description="seconds without a sign of life after which a request goes to another replica")
    max_deliver: int = Field(5, ge=1, description="worker deaths on one request before it is quarantined")
    connect_wait_s: float = Field(30.0, gt=0, description="seconds a starting role waits for the broker")


class WorkerSettings(BrokerSettings):
    """One replica of one executor."""

    uses: str = Field("", description="executor: exec.yml, module.Class, or inline YAML")
    flow: str = "default"
    name: str = Field("", description="executor name in the flow; default: metas.name or the class")
    replica: int = Field(0, ge=0, description="number of this replica, for names and logs")
    shard: int = Field(-1, ge=-1, description="shard this replica holds; -1 = not sharded")
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

    @field_validator("py_modules", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """`STREAMFLOW_PY_MODULES=a.py,b.py`."""
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Listen(BaseSettings):
    """One protocol on one port."""

    protocol: Literal["http", "grpc", "websocket"]
    host: str = "127.0.0.1"
    port: int = Field(ge=0, le=65535)


class GatewaySettings(BrokerSettings):
    """One gateway: the flow it serves and where it listens."""

    flow: str = "default"
    listen: list[Listen] = []
    timeout_send: float | None = Field(None, description="milliseconds a request may take (Jina's name and unit); None = no limit")
    prefetch: int = Field(1000, ge=0, description="requests in flight per client stream; 0 = no limit")
    title: str = "streamflow"
    description: str = ""
    cors: bool = False
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    drain_s: float = Field(30.0, gt=0)
