"""What a worker says about itself, on core NATS: who it is, which endpoints it serves, and that it still lives.

A worker publishes its `Announcement` on `control(flow, "announce")` when its state changes, every `BEAT_S` seconds, and at once when it
hears `control(flow, "hello")`. Gateways and supervisors keep those younger than `ALIVE_S`. No watcher, no TTL: nothing that a broker
restart can leave behind.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import msgpack

from .errors import InvalidInput

BEAT_S = 2.0
ALIVE_S = 3 * BEAT_S + 1.0


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """One endpoint as the executor declares it. Schemas are JSON Schema as pydantic prints them, None = untyped (LegacyDocument)."""

    name: str
    request_schema: dict[str, Any] | None = None
    response_schema: dict[str, Any] | None = None
    parameters_schema: dict[str, Any] | None = None
    streaming: bool = False
    single: bool = False  # takes `doc`, one document at a time
    write: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class Announcement:
    """One replica of one executor."""

    flow: str
    executor: str
    instance: str  # unique for each start of a process
    replica: int = 0
    shard: int = -1
    state: State = State.READY
    host: str = ""
    pid: int = 0
    version: str = ""  # of streamflow
    message: str = ""  # what a starting worker waits for
    endpoints: tuple[EndpointInfo, ...] = field(default=())

    def encode(self) -> bytes:
        return bytes(msgpack.packb(asdict(self), use_bin_type=True))

    @classmethod
    def decode(cls, data: bytes) -> Announcement:
        try:
            raw = msgpack.unpackb(data, raw=False)
            raw["endpoints"] = tuple(EndpointInfo(**endpoint) for endpoint in raw["endpoints"])
            return cls(**(raw | {"state": State(raw["state"])}))
        except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            raise InvalidInput(f"not an announcement: {error}") from error
