"""Reads the file of a flow again, as it was read the first time (`reload`)."""

from __future__ import annotations

from collections.abc import Mapping

from .config.addresses import ports_of, protocols_of
from .config.ports import choose
from .config.spec import FlowSpec, Origin
from .deployment import Deployment
from .flow import Flow


def load(origin: Origin, ports: Mapping[str, int]) -> FlowSpec:
    """The flow as its file is now; where that gives no port, a protocol stays on its own of `ports`. Raises `FlowError`."""
    kind = Deployment if origin.kind == "Deployment" else Flow
    served = kind.load_config(origin.path, context=origin.context, **origin.overrides)
    served.config_gateway(**origin.gateway)
    gateway = served.definition.complete_gateway()
    wanted = [port or ports.get(protocol, 0) for protocol, port in zip(protocols_of(gateway), ports_of(gateway), strict=True)]
    return served.definition.spec(choose(wanted, served.host))
