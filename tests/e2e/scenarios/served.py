"""Where a served flow or deployment listens."""

from __future__ import annotations

from streamflow import Deployment, Flow

PROTOCOLS = ("grpc", "http", "websocket")


def port_of(served: Flow | Deployment, protocol: str = "") -> int:
    """The only port, or that of `protocol` when it serves several."""
    ports = served.port if isinstance(served.port, list) else [served.port]
    protocols = served.protocol if isinstance(served.protocol, list) else [served.protocol]
    return ports[protocols.index(protocol) if protocol else 0]
