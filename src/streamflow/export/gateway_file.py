"""The flow file of an exported gateway: how requests go, and where it listens; nothing of the executors' code."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from streamflow.broker.flow import Graph, Node
from streamflow.config.save import dump_yaml
from streamflow.config.spec import FlowSpec, GatewaySpec

_PLACES = frozenset({"listen", "uses", "uses_with", "py_modules", "env", "timeout_ready_ms", "timeout_send_ms", "folder", "options"})
_RENAMED = {"timeout_ready_ms": "timeout_ready"}


def gateway_yaml(spec: FlowSpec, **files: str) -> str:
    """Text of a flow file whose graph has the same version; `files` are paths (ssl_certfile ...) as the container has them."""
    content = {
        "jtype": "Flow",
        "with": {"name": spec.name},
        "gateway": {**_gateway(spec.gateway), **files},
        "executors": _executors(spec.graph),
    }
    return dump_yaml(content)


def _gateway(spec: GatewaySpec) -> dict[str, Any]:
    defaults = GatewaySpec(())
    given = {each.name: getattr(spec, each.name) for each in fields(spec) if each.name not in _PLACES}
    made: dict[str, Any] = {"protocol": [each.protocol for each in spec.listen], "port": [each.port for each in spec.listen]}
    made |= {name: value for name, value in given.items() if value != getattr(defaults, name)} | {"host": defaults.host}
    return made if spec.timeout_send_ms is None else {**made, "timeout_send": spec.timeout_send_ms}


def _executors(graph: Graph) -> list[dict[str, Any]]:
    return [_executor(node) for node in graph.nodes]


def _executor(node: Node) -> dict[str, Any]:
    plain = {**node.to_dict(), "needs": list(node.needs)}
    return {_RENAMED.get(name, name): value for name, value in plain.items() if name != "hosts"}  # the bridge knows them
