"""From a sealed flow to the processes that run it: who runs, with which settings, in which environment."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.flow import Graph
from streamflow.broker.schema_check import require_fitting_schemas
from streamflow.config.spec import ExecutorSpec, GatewaySpec
from streamflow.workers.leases import LeaseFile

from . import gpus, logs
from .assignment import Plan, Prepared
from .members import Place, Role
from .ports import HeldPorts
from .sealing import Sealed, seal
from .spawn import Child

TASKS = "streamflow.tasks"
COMPANION = "streamflow.workers.companion:watch"
_NOT_OF_WORKERS = frozenset({"needs", "replicas"})  # of a node: workers need not be replaced when these change
GRACE_S = 35.0  # five more than a service's own drain (`drain_s`)
# Imported once in the supervisor and shared by all: before the gateway is forked, and before the workers are.
EARLY = (
    "streamflow.tasks",
    "streamflow.broker.bus",
    "streamflow.broker.bucket",
    "streamflow.broker.lifecycle",
    "streamflow.broker.settings",
    "orjson",
    "uvloop",
)
LATE = ("streamflow.workers.service", "streamflow.broker.topology", "streamflow.broker.codec")
_NO_SETTINGS = frozenset(  # of a gateway: what its settings have under another name, and what is of its process or its class
    {"listen", "host", "timeout_send_ms", "env", "timeout_ready_ms", "folder", "options", "uses", "uses_with", "py_modules"}
)


def prepare(flow: Sealed) -> Prepared:
    """The job of a supervisor, with a broker of its own unless the flow names one."""
    from streamflow.broker.server import EmbeddedBroker  # only where there is one

    url = flow.broker_url or os.environ.get("STREAMFLOW_BROKER_URL", "")
    durability = flow.durability or os.environ.get("STREAMFLOW_DURABILITY", "default")
    broker = None if url else EmbeddedBroker(flow.store, auth=_auth_of_broker(), durability=durability)
    ports, leases = HeldPorts(), LeaseFile.new().descriptor
    return Prepared(
        lambda url: make_plan(flow, url, ports, leases), broker, url, lambda url: make_plan(read_again(flow), url, ports, leases)
    )


def read_again(flow: Sealed) -> Sealed:
    """The flow as its file is now, on the ports that it has. Raises `FlowError` with file and line."""
    from .origin import load  # only when a flow file changed: pydantic, 0.1 s

    assert flow.origin is not None
    return seal(load(flow.origin, {each.protocol: each.port for each in flow.gateway.listen}))


def _auth_of_broker() -> Path | None:
    """Configuration of users for an own broker: the one beside the keys that the environment names."""
    credentials = os.environ.get("STREAMFLOW_BROKER_CREDENTIALS")
    if not credentials:
        return None
    from streamflow.broker.accounts import auth_file_of  # nats: 0.15 s

    return auth_file_of(credentials)


def make_plan(flow: Sealed, broker_url: str, ports: HeldPorts | None = None, leases: int | None = None) -> Plan:
    """The processes of `flow`. Without `ports` its gateway binds them by itself, and no other can take over from it. Without `leases`, the
    descriptor of a file for them, each worker has a companion of its own."""
    # pydantic-settings takes 0.1 s, meanwhile the broker starts.
    from streamflow.broker.settings import BrokerSettings

    graph = Graph.from_dict(flow.graph)
    task = Child("provision", f"{TASKS}:provision", BrokerSettings(broker_url=broker_url, **promised(flow)), {"graph": flow.graph})
    child = gateway_child(flow.gateway, graph.flow, broker_url, flow.classes.get("", b""))
    child = replace(child, options={**child.options, "check_schemas": False})  # `check` below, before anybody is told that it serves
    places = [Place(task, Role.TASK, "provision", None), _gateway(flow, child, ports)]
    if leases is not None:
        places.append(_companion(leases))
    for executor in flow.executors:
        places += _workers(executor, graph, broker_url, flow.classes.get(executor.name, b""), leases)
    floats = any(node.floating for node in graph.nodes)
    waits = replace(task, name="settle", target=f"{TASKS}:settle")
    return Plan(
        tuple(places),
        settle=Place(waits, Role.SETTLE, "settle") if floats else None,
        early=EARLY,
        late=LATE,
        check=partial(check_schemas, graph),
        grace_s=GRACE_S,
        release=ports.close if ports is not None else lambda: None,
        kind=flow.origin.kind if flow.origin else "Flow",
        flow_file=flow.origin.path if flow.origin else "",
        stage=Place(replace(task, name="stage", options={**task.options, "current": False}), Role.TASK, "stage", None),
        emptied=lambda gone: Place(replace(waits, options={**waits.options, "only": gone}), Role.TASK, "settle", None),
        sources=flow.sources,
    )


def _gateway(flow: Sealed, child: Child, ports: HeldPorts | None) -> Place:
    """A gateway that another one can take over from, unless it is one of the user's own that binds its ports by itself."""
    spec, settings = flow.gateway, cast(Any, child.settings)
    ready_s = _seconds(spec.timeout_ready_ms)
    if ports is None or not flow.takes_sockets:
        return Place(child, Role.GATEWAY, "gateway", ready_s, handover=False, fingerprint=child)
    inherited = [(each.host, each.port) for each in settings.listen if each.protocol != "grpc"]
    if settings.admin_port:
        inherited.append((settings.admin_host or settings.listen[0].host, settings.admin_port))
    shared = [(each.host, each.port) for each in settings.listen if each.protocol == "grpc"]
    held = ports.hold(inherited, shared)
    heir = replace(child, settings=settings.model_copy(update={"held": held}), inherit=tuple(held.values()))
    return Place(heir, Role.GATEWAY, "gateway", ready_s, fingerprint=heir)


def _companion(leases: int) -> Place:
    child = Child("companion", COMPANION, None, {"leases": leases}, inherit=(leases,))
    return Place(child, Role.COMPANION, "companion", fingerprint=child)


def promised(flow: Sealed) -> dict[str, Any]:
    """The durability that the flow itself asks for, as a setting."""
    return {"durability": flow.durability} if flow.durability else {}


def check_schemas(graph: Graph, endpoints: Mapping[str, list[dict[str, Any]]]) -> None:
    """Raise `FlowError` unless what each executor gives is what those behind it take (FL-12); `endpoints` as their workers said."""
    require_fitting_schemas(graph, {name: [EndpointInfo(**each) for each in offered] for name, offered in endpoints.items()})


def gateway_child(spec: GatewaySpec, flow: str, broker_url: str, sealed: bytes = b"", **more: Any) -> Child:
    """The process of a gateway; `sealed` holds what `seal` took out of `spec`, `more` are further fields of `GatewaySettings`."""
    from streamflow.broker.settings import GatewaySettings, Listen  # pydantic-settings, as above

    listen = [Listen.model_validate({"protocol": each.protocol, "host": spec.host, "port": each.port}) for each in spec.listen]
    given = {each.name: getattr(spec, each.name) for each in fields(spec) if each.name not in _NO_SETTINGS}
    changed: dict[str, Any] = {name: value for name, value in given.items() if value != getattr(GatewaySpec(()), name)}
    settings = GatewaySettings(broker_url=broker_url, flow=flow, listen=listen, timeout_send=spec.timeout_send_ms, **{**changed, **more})
    options: dict[str, Any] = {"base_dir": str(spec.folder), "py_modules": spec.py_modules}
    if not sealed:
        options |= {"uses": spec.uses, "uses_with": dict(spec.uses_with)}
    return Child("gateway", f"{TASKS}:serve", settings, options, sealed, spec.env, _logging(spec.options))


def _logging(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in logs.OPTIONS if name in options}


def _workers(spec: ExecutorSpec, graph: Graph, broker_url: str, sealed: bytes, leases: int | None) -> Iterator[Place]:
    """A place for each replica of each shard."""
    from streamflow.broker.settings import WorkerSettings  # pydantic-settings, as above

    shared: dict[str, Any] = {"broker_url": broker_url, "flow": graph.flow, **_executor_settings(spec, WorkerSettings.model_fields)}
    options = _worker_options(spec, sealed, leases)
    inherit = () if leases is None else (leases,)
    node = {name: value for name, value in graph.node(spec.name).to_dict().items() if name not in _NOT_OF_WORKERS}
    for shard in range(spec.shards) if spec.shards > 1 else (-1,):
        for replica in range(spec.replicas):
            name = f"{spec.name}/rep-{replica}" if shard < 0 else f"{spec.name}/shard-{shard}/rep-{replica}"
            env = environment(spec.env, max(shard, 0) * spec.replicas + replica)
            settings = WorkerSettings(**shared, replica=replica, shard=shard)
            child = Child(name, f"{TASKS}:work", settings, options, sealed, env, _logging(spec.options), inherit)
            of_version = replace(child, options={**options, "flow_version": graph.version})
            yield Place(of_version, Role.WORKER, spec.name, _seconds(spec.timeout_ready_ms), fingerprint=(child, node))


def _executor_settings(spec: ExecutorSpec, known: Collection[str]) -> dict[str, Any]:
    """What all workers of an executor are told of it; of its options those that are `known` to be settings."""
    settings: dict[str, Any] = {
        "name": spec.name,
        "uses_with": dict(spec.uses_with),
        "uses_metas": dict(spec.uses_metas),
        "uses_requests": dict(spec.uses_requests),
        "uses_dynamic_batching": dict(spec.uses_dynamic_batching),
        "py_modules": list(spec.py_modules),
        "workspace": spec.workspace,
        **{name: value for name, value in spec.options.items() if name in known},
    }
    return settings if spec.concurrency is None else {**settings, "concurrency": spec.concurrency}


def _worker_options(spec: ExecutorSpec, sealed: bytes, leases: int | None) -> dict[str, Any]:
    """Keywords of `tasks.work`."""
    options: dict[str, Any] = {"base_dir": str(spec.folder)}
    if not sealed:
        options["uses"] = spec.uses
    if spec.extra_search_paths:
        options["extra_search_paths"] = spec.extra_search_paths
    if spec.where:
        options["where"] = spec.where
    if spec.options.get("reload"):
        options["reload"] = True
    if leases is not None:
        options["leases"] = leases
    return options


def environment(given: Mapping[str, str], index: int) -> dict[str, str]:
    """Variables of one process, the cards dealt out when `CUDA_VISIBLE_DEVICES` (given, or of this process) starts with RR."""
    env = dict(given)
    cards = env.pop(gpus.VARIABLE, os.environ.get(gpus.VARIABLE, ""))
    if cards and (card := gpus.assign(cards, index, gpus.device_count())) is not None:
        env[gpus.VARIABLE] = card
    return env


def _seconds(timeout_ready_ms: int) -> float | None:
    return None if timeout_ready_ms < 0 else timeout_ready_ms / 1000
