"""From checked arguments to `Node`, `ExecutorSpec`, `GatewaySpec` and `FlowSpec`."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

from streamflow import logs
from streamflow.broker.errors import FlowError
from streamflow.broker.flow import Graph, Node, Polling

from .addresses import addresses_of, host_of, protocols_of, warn_of_addresses
from .models import ExecutorFile, Given
from .spec import TIMEOUT_READY_MS, ExecutorSpec, FlowSpec, GatewaySpec, ListenAt, Origin, Uses

log = logging.getLogger(__name__)

YAML_SUFFIXES = (".yml", ".yaml", ".jaml")
BRIDGE = "streamflow.bridge.Bridge"
_NODE_AS_GIVEN = (
    "replicas", "shards", "when", "floating", "external_flow", "external_executor", "no_reduce", "allow_partial", "stateful",
    "retries", "backoff_s", "max_backoff_s", "max_deliver", "ack_wait_s", "timeout_run_s",
)  # fmt: skip
_EXECUTOR_AS_GIVEN = (
    "uses_with", "uses_metas", "uses_requests", "uses_dynamic_batching", "replicas", "shards", "concurrency", "env", "workspace",
)  # fmt: skip
_GATEWAY_AS_GIVEN = (
    "prefetch", "title", "description", "cors", "no_debug_endpoints", "no_crud_endpoints", "expose_graphql_endpoint", "uvicorn_kwargs",
    "grpc_server_options", "compression", "allow_anonymous", "fair_in_flight", "allowed_origins", "header_timeout_s", "body_timeout_s",
    "admin_port", "admin_host", "uses", "uses_with", "env",
)  # fmt: skip
_GATEWAY_FILES = ("ssl_certfile", "ssl_keyfile", "ssl_ca", "auth_file")
_OF_NODE = frozenset({*_NODE_AS_GIVEN, "name", "needs", "external", "polling", "retry_on", "queue"})  # what a `Node` has fields for
_OF_EXECUTOR = _OF_NODE - {"external"} | {*_EXECUTOR_AS_GIVEN, "uses", "py_modules", "extra_search_paths", "timeout_ready"}
_OF_GATEWAY = frozenset({
    *_GATEWAY_AS_GIVEN, *_GATEWAY_FILES, "host", "port", "protocol", "expose_endpoints", "py_modules", "timeout_send", "timeout_ready",
})  # fmt: skip


class FlowFacts(Protocol):
    """What `build_spec` needs to know of a definition besides the arguments of its parts."""

    shared: Given
    folder: Path
    sources: tuple[Path, ...]
    origin: Origin | None


def node_of(given: Given) -> Node:
    """The routing side of an executor; `given` has `name` and `needs`.

    One that is external by its address is an ordinary executor here: workers of this flow, the bridge, pass its requests on.
    """
    given = {**given["queue"].given(), **given} if "queue" in given else given
    hosts = addresses_of(given)
    known = {name: given[name] for name in _NODE_AS_GIVEN if name in given}
    return Node(
        given["name"],
        tuple(given["needs"]),
        polling={endpoint: Polling(value) for endpoint, value in given.get("polling", {}).items()},
        external=bool(given.get("external")) and not hosts,
        hosts=hosts,
        retry_on=tuple(given.get("retry_on", ())),
        timeout_ready_ms=given.get("timeout_ready", TIMEOUT_READY_MS),
        options=_without(given, _OF_NODE),
        **known,
    )


def build_spec(graph: Graph, executors: list[Given], gateway: Given, flow: FlowFacts, ports: list[int]) -> FlowSpec:
    """The finished flow. Raises `FlowError` for files that do not exist and ports that do not fit the protocols."""
    for given in executors:
        warn_of_addresses(given)
    broker = flow.shared.get("broker")
    if not flow.shared.get("name") and ((broker and broker.url) or os.environ.get("STREAMFLOW_BROKER_URL")):
        log.warning("this flow has no name, so it is %r on a broker that others may use too: give it one", graph.flow)
    store = broker.store if broker else None
    return FlowSpec(
        graph,
        tuple(_spec_of(given, flow.folder) for given in executors if not given.get("external") or addresses_of(given)),
        gateway_spec(gateway, flow.folder, ports),
        broker_url=broker.url if broker else None,
        store=flow.folder / store if store else None,
        durability=flow.shared.get("durability"),
        reload=bool(flow.shared.get("reload")),
        sources=flow.sources,
        origin=flow.origin,
        options=_logging({name: flow.shared[name] for name in logs.OPTIONS if name in flow.shared}, flow.folder),
    )


def _spec_of(given: Given, folder: Path) -> ExecutorSpec:
    addresses = addresses_of(given)
    return bridge_spec(given, addresses, folder) if addresses else executor_spec(given, folder)


def bridge_spec(given: Given, addresses: tuple[str, ...], folder: Path) -> ExecutorSpec:
    """The workers that pass the requests of an executor on to gateways elsewhere."""
    arguments: Given = {"addresses": list(addresses), "tls": given.get("tls"), "metadata": given.get("grpc_metadata")}
    arguments |= {"protocol": protocols_of(given)[0] if "protocol" in given else None, "retries": given.get("retries")}
    return ExecutorSpec(
        given["name"],
        uses=BRIDGE,
        uses_with={name: value for name, value in arguments.items() if value is not None},
        replicas=given.get("replicas", 1),
        concurrency=given.get("concurrency"),
        env=given.get("env", {}),
        timeout_ready_ms=given.get("timeout_ready", TIMEOUT_READY_MS),
        folder=folder,
    )


def executor_spec(given: Given, folder: Path) -> ExecutorSpec:
    places = _places(given, folder)
    known = {name: given[name] for name in _EXECUTOR_AS_GIVEN if name in given}
    return ExecutorSpec(
        given["name"],
        uses=_uses(given.get("uses"), places, f"executor {given['name']!r}"),
        py_modules=tuple(_file_or_text(module, places) for module in given.get("py_modules", ())),
        extra_search_paths=tuple(str(folder / path) for path in given.get("extra_search_paths", ())),
        timeout_ready_ms=given.get("timeout_ready", TIMEOUT_READY_MS),
        folder=folder,
        options=_logging(_without(given, _OF_EXECUTOR), folder),
        **known,
    )


def gateway_spec(given: Given, folder: Path, ports: list[int]) -> GatewaySpec:
    places = _places(given, folder)
    timeout_ms = given.get("timeout_send", -1)
    known = {name: given[name] for name in _GATEWAY_AS_GIVEN if name in given}
    files: dict[str, Any] = {name: _file_or_none(given.get(name), places) for name in _GATEWAY_FILES}
    return GatewaySpec(
        tuple(map(ListenAt, protocols_of(given), ports)),
        host=host_of(given),
        timeout_send_ms=None if timeout_ms < 0 else timeout_ms,
        expose_endpoints={name: route.given() for name, route in given.get("expose_endpoints", {}).items()},
        py_modules=tuple(_file_or_text(module, places) for module in given.get("py_modules", ())),
        timeout_ready_ms=given.get("timeout_ready", TIMEOUT_READY_MS),
        folder=folder,
        options=_logging(_without(given, _OF_GATEWAY), folder),
        **files,
        **known,
    )


def _without(given: Given, names: Collection[str]) -> Given:
    return {name: value for name, value in given.items() if name not in names}


def _logging(options: Given, folder: Path) -> Given:
    """`options` with the logging file as an absolute path; "default" is none."""
    config = options.get("log_config")
    return options if config in (None, "default") else {**options, "log_config": str(folder.absolute() / config)}


def _places(given: Given, folder: Path) -> list[Path]:
    """Folders in which files are looked for, the first first."""
    return [folder, *(folder / path for path in given.get("extra_search_paths", ()))]


def _uses(uses: Any, places: list[Path], who: str) -> Uses:
    if isinstance(uses, ExecutorFile):
        return as_mapping(uses, places)
    if isinstance(uses, str) and "\n" not in uses and uses.endswith(YAML_SUFFIXES) and "://" not in uses:
        found = _find(uses, places)
        if found is None:
            raise FlowError(f"{who}: uses: no file {uses!r} in {', '.join(map(str, places))}")
        return str(found)
    return uses  # type: ignore[no-any-return]  # str, class or None by the models


def as_mapping(uses: ExecutorFile, places: list[Path] | None = None) -> dict[str, Any]:
    """The mapping that an inline `uses` was, with files as absolute paths."""
    mapping = {"with" if name == "arguments" else name: value for name, value in uses.given().items()}
    if places and "py_modules" in mapping:
        mapping["py_modules"] = [_file_or_text(module, places) for module in mapping["py_modules"]]
    return mapping


def _find(name: str, places: list[Path]) -> Path | None:
    return next((place.joinpath(name).resolve() for place in places if place.joinpath(name).is_file()), None)


def _file_or_text(name: str, places: list[Path]) -> str:
    """`py_modules` may also name importable modules."""
    return str(_find(name, places) or name)


def _file_or_none(name: str | None, places: list[Path]) -> str | None:
    return None if name is None else _file_or_text(name, places)
