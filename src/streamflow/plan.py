"""From a `FlowSpec` to the processes of a local flow: who runs, with which settings, in which environment.

`seal` runs where the flow was written; it puts what may need the user's code (classes, constructor arguments) into bytes that only the
worker opens. `prepare` runs in the supervisor, which therefore never imports a line of the user's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.errors import FlowError, StreamflowError
from streamflow.broker.flow import Graph
from streamflow.broker.schema_check import require_fitting_schemas
from streamflow.config.spec import ExecutorSpec, FlowSpec, GatewaySpec

from . import gpus
from .job import Plan, Prepared
from .members import Place, Role
from .pickling import dumps
from .report import Report
from .spawn import Child

log = logging.getLogger(__name__)

HERE = "streamflow.plan"
SETTLE_LOOK_S = 0.05
GRACE_S = 35.0  # five more than a service's own drain (`drain_s`)
# Imported once in the supervisor and shared by all: before the gateway is forked, and before the workers are.
EARLY = (
    "streamflow.broker.bus",
    "streamflow.broker.bucket",
    "streamflow.broker.lifecycle",
    "streamflow.broker.settings",
    "orjson",
    "uvloop",
)
_SERVERS = {
    "http": "streamflow.gateway.http_server",
    "websocket": "streamflow.gateway.http_server",
    "grpc": "streamflow.gateway.grpc_server",
}
LATE = ("streamflow.workers.service", "streamflow.broker.topology", "streamflow.broker.codec")
_OF_SETTINGS = frozenset(
    {"listen", "host", "timeout_send_ms", "env", "timeout_ready_ms", "folder", "options"}
)  # of a gateway, or of its process


@dataclass(frozen=True, slots=True)
class Sealed:
    """A flow that can be unpickled without the user's code: `classes` holds the rest, by executor name ("" = the gateway)."""

    graph: Mapping[str, Any]
    executors: tuple[ExecutorSpec, ...]
    gateway: GatewaySpec
    classes: Mapping[str, bytes]
    broker_url: str | None
    store: Path | None


def seal(spec: FlowSpec) -> Sealed:
    """`spec` ready for the supervisor's pipe. Raises `StreamflowError` naming the executor whose class or arguments cannot be pickled."""
    parts: dict[str, ExecutorSpec | GatewaySpec] = {"": spec.gateway, **{each.name: each for each in spec.executors}}
    classes = {name: _seal_code(part) for name, part in parts.items() if not _plain([part.uses, part.uses_with])}
    gateway, *executors = (replace(part, uses=None, uses_with={}) if name in classes else part for name, part in parts.items())
    assert isinstance(gateway, GatewaySpec)
    only = tuple(replace(each, options=_plain_ones(each.options)) for each in executors if isinstance(each, ExecutorSpec))
    return Sealed(spec.graph.to_dict(), only, gateway, classes, spec.broker_url, spec.store)


def _plain(value: object) -> bool:
    """Whether `value` is text, numbers, and lists and mappings of them."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _plain_ones(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if _plain(value)}


def _seal_code(part: ExecutorSpec | GatewaySpec) -> bytes:
    who = f"executor {part.name!r}" if isinstance(part, ExecutorSpec) else "gateway"
    roots = [each for each in (part.uses, *part.uses_with.values()) if isinstance(each, type)]
    try:
        return dumps({"uses": part.uses, "uses_with": dict(part.uses_with)}, *roots)
    except Exception as error:  # user objects may raise anything
        raise StreamflowError(f"{who}: its class or arguments cannot be sent to its process: {error}") from error


def prepare(flow: Sealed) -> Prepared:
    """The job of a supervisor, with a broker of its own unless the flow names one."""
    from streamflow.broker.server import EmbeddedBroker  # only where there is one

    url = flow.broker_url or os.environ.get("STREAMFLOW_BROKER_URL", "")
    broker = None if url else EmbeddedBroker(flow.store)
    return Prepared(lambda url: make_plan(flow, url), broker, url)


def make_plan(flow: Sealed, broker_url: str) -> Plan:
    # pydantic-settings takes 0.1 s, meanwhile the broker starts.
    from streamflow.broker.settings import BrokerSettings

    graph = Graph.from_dict(flow.graph)
    task = Child("provision", f"{HERE}:provision", BrokerSettings(broker_url=broker_url), {"graph": flow.graph})
    child = gateway_child(flow, broker_url)
    child = replace(child, options={**child.options, "check_schemas": False})  # `check` below, before anybody is told that it serves
    gateway = Place(child, Role.GATEWAY, "gateway", _seconds(flow.gateway.timeout_ready_ms))
    places = [Place(task, Role.TASK, "provision", None), gateway]
    for executor in flow.executors:
        places += _workers(executor, graph.flow, broker_url, flow.classes.get(executor.name, b""))
    floats = any(node.floating for node in graph.nodes)
    settle = Place(replace(task, name="settle", target=f"{HERE}:settle"), Role.SETTLE, "settle") if floats else None
    return Plan(tuple(places), settle, EARLY, LATE, partial(check_schemas, graph), GRACE_S)


def check_schemas(graph: Graph, endpoints: Mapping[str, list[dict[str, Any]]]) -> None:
    """Raise `FlowError` unless what each executor gives is what those behind it take (FL-12); `endpoints` as their workers said."""
    require_fitting_schemas(graph, {name: [EndpointInfo(**each) for each in offered] for name, offered in endpoints.items()})


def gateway_child(flow: Sealed, broker_url: str, **more: Any) -> Child:
    """The gateway's process; `more` are further fields of `GatewaySettings`."""
    from streamflow.broker.settings import GatewaySettings, Listen

    spec = flow.gateway
    listen = [Listen.model_validate({"protocol": each.protocol, "host": spec.host, "port": each.port}) for each in spec.listen]
    given = {each.name: getattr(spec, each.name) for each in fields(spec) if each.name not in _OF_SETTINGS}
    changed = {name: value for name, value in given.items() if value != getattr(GatewaySpec(()), name)}
    known: dict[str, Any] = {name: value for name, value in changed.items() if name in GatewaySettings.model_fields}
    settings = GatewaySettings(
        broker_url=broker_url, flow=flow.graph["flow"], listen=listen, timeout_send=spec.timeout_send_ms, **{**known, **more}
    )
    rest = {name: value for name, value in changed.items() if name not in known}
    return Child("gateway", f"{HERE}:serve", settings, {"rest": rest}, flow.classes.get("", b""), spec.env)


def _workers(spec: ExecutorSpec, flow: str, broker_url: str, sealed: bytes) -> Iterator[Place]:
    from streamflow.broker.settings import WorkerSettings

    shared: dict[str, Any] = {
        "broker_url": broker_url,
        "flow": flow,
        "name": spec.name,
        "uses_with": dict(spec.uses_with),
        "uses_metas": dict(spec.uses_metas),
        "uses_requests": dict(spec.uses_requests),
        "uses_dynamic_batching": dict(spec.uses_dynamic_batching),
        "py_modules": list(spec.py_modules),
        "workspace": spec.workspace,
        **{name: value for name, value in spec.options.items() if name in WorkerSettings.model_fields},
    }
    if spec.concurrency is not None:
        shared["concurrency"] = spec.concurrency
    options: dict[str, Any] = {"base_dir": str(spec.folder)}
    if not sealed:
        options["uses"] = spec.uses
    if spec.extra_search_paths:
        options["extra_search_paths"] = spec.extra_search_paths
    for shard in range(spec.shards) if spec.shards > 1 else (-1,):
        for replica in range(spec.replicas):
            name = f"{spec.name}/rep-{replica}" if shard < 0 else f"{spec.name}/shard-{shard}/rep-{replica}"
            env = environment(spec.env, max(shard, 0) * spec.replicas + replica)
            child = Child(name, f"{HERE}:work", WorkerSettings(**shared, replica=replica, shard=shard), options, sealed, env)
            yield Place(child, Role.WORKER, spec.name, _seconds(spec.timeout_ready_ms))


def environment(given: Mapping[str, str], index: int) -> dict[str, str]:
    """Variables of one process, the cards dealt out when `CUDA_VISIBLE_DEVICES` (given, or of this process) starts with RR."""
    env = dict(given)
    cards = env.pop(gpus.VARIABLE, os.environ.get(gpus.VARIABLE, ""))
    if cards and (card := gpus.assign(cards, index, gpus.device_count())) is not None:
        env[gpus.VARIABLE] = card
    return env


def _seconds(timeout_ready_ms: int) -> float | None:
    return None if timeout_ready_ms < 0 else timeout_ready_ms / 1000


def work(
    settings: Any,
    *,
    report: Report,
    base_dir: str,
    uses: Any = None,
    uses_with: Mapping[str, Any] | None = None,
    extra_search_paths: Sequence[str] = (),
) -> int:
    """A worker process of a local flow."""
    from streamflow.workers import service  # docarray: 0.35 s

    if uses_with:
        settings = settings.model_copy(update={"uses_with": dict(uses_with)})
    return int(service.run(settings, uses, report, base_dir, extra_search_paths))


def serve(
    settings: Any, *, report: Report, rest: Mapping[str, Any], uses: Any = None, check_schemas: bool = True, **_arguments: Any
) -> int:
    """The gateway process of a flow. `rest` is what the flow file says beyond the settings."""
    from streamflow.gateway import service  # nats: 0.15 s

    if uses is not None or "uses" in rest:
        raise FlowError("gateway: uses: a gateway class of one's own does not run here yet; put a service of your own before the gateway")
    for name in rest:
        log.warning("gateway: %s has no effect yet", name)
    for protocol in dict.fromkeys(listen.protocol for listen in settings.listen):
        import_module(_SERVERS[protocol])  # now, while the broker starts and the workers load, and not once the flow is known
    return int(service.run(settings, report=report, check_schemas=check_schemas))


def provision(settings: Any, *, report: Report, graph: Mapping[str, Any]) -> int:
    """The task that makes a flow known on its broker: streams, consumers, definition."""
    from streamflow.broker import topology  # nats: 0.15 s

    report("waiting", f"for the broker at {settings.broker_url}")
    return _on_bus(settings, lambda bus: topology.provision(bus, Graph.from_dict(graph), settings))


def settle(settings: Any, *, report: Report, graph: Mapping[str, Any]) -> int:
    """The task that ends when every queue of the flow is empty and every request taken from one is settled."""
    from streamflow.broker import topology  # nats: 0.15 s

    async def wait(bus: Any) -> None:
        consumers = [each for stream in topology.streams_of(Graph.from_dict(graph), settings) for each in stream.consumers]
        while True:
            infos = [await bus.api(f"CONSUMER.INFO.{each.stream}.{each.name}") for each in consumers]
            if not any(info["num_pending"] + info["num_ack_pending"] for info in infos):
                return
            await asyncio.sleep(SETTLE_LOOK_S)

    return _on_bus(settings, wait)


def _on_bus(settings: Any, task: Callable[[Any], Coroutine[Any, Any, None]]) -> int:
    """Run `task(bus)` on a connection of its own; a signal to stop cancels it."""
    from streamflow.broker import lifecycle
    from streamflow.broker.bus import Bus

    async def work() -> None:
        bus = await Bus.connect(settings, "supervisor")
        try:
            await task(bus)
        finally:
            await bus.close()

    async def main(stop: lifecycle.Stop) -> int:
        await stop.unless(work())
        return stop.code

    return lifecycle.run(main)
