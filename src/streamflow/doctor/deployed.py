"""The examination of one flow on a broker: are its streams as its deployer meant them, do they have room, do they store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from streamflow.broker import bucket, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.drift import differences
from streamflow.broker.errors import NotFound, Overloaded, PermissionDenied, Unavailable
from streamflow.broker.flow import Graph
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import PROMISE, Consumer, Stream, streams_of

from .verdict import Verdict, fail, ok, warn

Info = dict[str, Any]  # of a stream or consumer, as JetStream tells it

FULL = 0.8  # of a limit: time to look
MAX_WAITING = 512  # JetStream's default


@dataclass(frozen=True, slots=True)
class Deployed:
    """A flow that the broker knows, and its streams there by name."""

    graph: Graph
    streams: dict[str, Info]

    @property
    def name(self) -> str:
        return self.graph.flow

    @property
    def promise(self) -> str:
        """The durability that its deployer asked for."""
        own = self.streams.get(subjects.bucket_stream(self.name), {})
        return str(own.get("config", {}).get("metadata", {}).get(PROMISE, "default"))

    @property
    def servers(self) -> set[str]:
        """Names of those that hold its streams."""
        clusters = [stream.get("cluster", {}) for stream in self.streams.values()]
        return {name for cluster in clusters for name in (cluster.get("leader"), *map(_name, _copies(cluster))) if name}


def _copies(cluster: Info) -> Iterable[Info]:
    return cluster.get("replicas") or ()


def _name(peer: Info) -> str:
    return str(peer["name"])


async def find(bus: Bus, streams: dict[str, Info]) -> list[Deployed]:
    """The flows to which `streams` belong."""
    prefix = subjects.bucket_stream("")
    return [await _find(bus, name.removeprefix(prefix), streams) for name in streams if name.startswith(prefix)]


async def _find(bus: Bus, flow: str, streams: dict[str, Info]) -> Deployed:
    tags = (f"{subjects.PREFIX}.{flow}.", subjects.bucket_key(flow, ""))
    own = {name: info for name, info in streams.items() if str((info["config"].get("subjects") or [""])[0]).startswith(tags)}
    try:
        return Deployed(await bucket.load_graph(bus, flow), own)
    except (NotFound, PermissionDenied):
        return Deployed(Graph(flow), own)


async def examine(bus: Bus, flow: Deployed, settings: BrokerSettings) -> list[Verdict]:
    """Everything about one flow."""
    found = [*_storage(flow), *_room(flow), *_copies_of(flow, settings)]
    wanted = streams_of(flow.graph, settings.model_copy(update={"durability": flow.promise})) if flow.graph.nodes else ()
    drift = [verdict for stream in wanted for verdict in await _drift(bus, flow, stream)]
    return [*found, *(drift or [ok(f"flow {flow.name!r}: streams and consumers are as deployed")]), await _stores(bus, flow.name)]


def _storage(flow: Deployed) -> Iterator[Verdict]:
    in_memory = sorted(name for name, info in flow.streams.items() if info["config"]["storage"] == "memory")
    if in_memory and flow.promise != "memory":
        text = f"flow {flow.name!r} promises {flow.promise}, but {', '.join(in_memory)} live in memory"
        yield fail(text, "remove these streams and deploy the flow again")


def _room(flow: Deployed) -> Iterator[Verdict]:
    for name, info in flow.streams.items():
        limit, used = info["config"].get("max_bytes", -1), info["state"]["bytes"]
        if limit > 0 and used > FULL * limit:
            yield warn(f"stream {name} holds {used} of {limit} bytes; a full one refuses requests (429)", "add workers, or purge it")


def _copies_of(flow: Deployed, settings: BrokerSettings) -> Iterator[Verdict]:
    for name, info in flow.streams.items():
        copies = info["config"]["num_replicas"]
        if copies < settings.stream_replicas:
            yield fail(f"stream {name} has {copies} replicas, not {settings.stream_replicas}", "deploy the flow again with these settings")
        late = [_name(peer) for peer in _copies(info.get("cluster", {})) if peer.get("offline") or not peer.get("current")]
        if late:
            yield fail(f"stream {name}: its copies on {', '.join(late)} are offline or behind", "start that server, or look at its log")


async def _drift(bus: Bus, flow: Deployed, stream: Stream) -> list[Verdict]:
    """What was changed by hand, or deployed with other settings than those of whoever asks."""
    there = flow.streams.get(stream.name)
    if there is None:
        return [fail(f"flow {flow.name!r}: stream {stream.name} is missing", "deploy the flow again")]
    found = _different(f"stream {stream.name}", differences(stream.config, there["config"]))
    for consumer in stream.consumers:
        found += await _drift_of_consumer(bus, consumer)
    return found


async def _drift_of_consumer(bus: Bus, consumer: Consumer) -> list[Verdict]:
    where = f"consumer {consumer.name} of stream {consumer.stream}"
    info = await bus.consumer(consumer.stream, consumer.name)
    if info is None:
        return [fail(f"{where} is missing", "deploy the flow again")]
    found = _different(where, differences(consumer.config, info["config"]))
    limit = info["config"].get("max_waiting", MAX_WAITING)
    if info["num_waiting"] > FULL * limit:
        found.append(warn(f"{where}: {info['num_waiting']} of {limit} pull requests wait", "more workers would get nothing"))
    return found


def _different(where: str, phrases: list[str]) -> list[Verdict]:
    advice = "somebody changed it by hand, or the deployer has other settings than these: deploy the flow again"
    return [warn(f"{where}: {phrase}", advice) for phrase in phrases]


async def _stores(bus: Bus, flow: str) -> Verdict:
    """Store something: a stream whose disk was full answers everything but a publish."""
    try:
        await bucket.put(bus, flow, "doctor", round(time.time()))
    except PermissionDenied:
        return ok(f"flow {flow!r}: storing was not tried, these credentials may not")
    except (Unavailable, Overloaded) as error:
        return fail(f"flow {flow!r}: the broker stores nothing: {error}", "make room on its disk, then restart it")
    return ok(f"flow {flow!r}: the broker stores")
