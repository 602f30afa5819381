"""Where a gateway listens, and where an executor is that is external by its address."""

from __future__ import annotations

import logging

from streamflow.broker.errors import FlowError

from .models import Given

log = logging.getLogger(__name__)

DEFAULT_PROTOCOL = "grpc"
_HERE = frozenset({"0.0.0.0", "127.0.0.1", "localhost", "::", "::1"})
_SHARING = {"http", "websocket"}  # one listener speaks both


def protocols_of(gateway: Given) -> list[str]:
    return list(gateway.get("protocol") or [DEFAULT_PROTOCOL])


def host_of(gateway: Given) -> str:
    """The one address a gateway listens on."""
    hosts = gateway.get("host") or ["0.0.0.0"]
    if len(hosts) > 1:
        raise FlowError(f"gateway: host: one address to listen on, got {len(hosts)}")
    return str(hosts[0])


def ports_of(gateway: Given) -> list[int]:
    """The ports the user gave, 0 = to be chosen, one per protocol. HTTP and WebSocket may share one."""
    protocols, ports = protocols_of(gateway), gateway.get("port") or []
    if len(set(protocols)) != len(protocols):
        raise FlowError(f"gateway: protocol: {', '.join(protocols)}: each protocol once")
    if len(ports) == 1 and set(protocols) == _SHARING:
        ports = ports * 2
    if ports and len(ports) != len(protocols):
        raise FlowError(f"gateway: port: {len(ports)} for {len(protocols)} protocols ({', '.join(protocols)}); give one port per protocol")
    of_port: dict[int, set[str]] = {}
    for protocol, port in zip(protocols, ports, strict=False):
        of_port.setdefault(port, set()).add(protocol)
    if any(port and len(sharing) > 1 and sharing != _SHARING for port, sharing in of_port.items()):
        raise FlowError("gateway: port: the same port twice (only http and websocket can share one)")
    return ports or [0] * len(protocols)


def addresses_of(given: Given) -> tuple[str, ...]:
    """Addresses of an external executor: "h:p" each, or hosts and ports side by side, or one host with several ports; () = it has none."""
    hosts, ports = given.get("host") or [], given.get("port") or []
    if not given.get("external"):
        return ()
    if hosts or ports:
        _check_bridged(given)
    if not ports:
        return tuple(hosts)
    hosts = hosts or ["localhost"]
    if len(hosts) == 1:
        hosts = hosts * len(ports)
    if len(ports) == 1:
        ports = ports * len(hosts)
    if len(hosts) != len(ports):
        raise FlowError(f"executor {given['name']!r}: {len(hosts)} hosts and {len(ports)} ports")
    return tuple(host if _has_port(host) else f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("://")[2]


def _check_bridged(given: Given) -> None:
    """Raise `FlowError` for what an executor that is external by its address cannot have beside it."""
    wrong = [name for name in ("external_flow", "external_executor", "shards") if given.get(name) not in (None, 1)]
    if wrong:
        raise FlowError(f"executor {given['name']!r}: {wrong[0]}: host and port name a gateway, behind which this is not ours to say")


def warn_of_addresses(given: Given) -> None:
    """Say so where `host` or `protocol` is set for an executor that runs here, for which neither means anything."""
    if given.get("external"):
        return
    if "protocol" in given:
        log.warning("executor %r: protocol has no effect: workers listen nowhere; set it for the gateway", given["name"])
    if any(host not in _HERE for host in given.get("host") or []):
        log.warning("executor %r: host has no effect: workers listen nowhere; for one that runs elsewhere set external", given["name"])
