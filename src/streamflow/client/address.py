"""Where a client connects: one URL, or keywords, never both for the same thing.

A broker's URL, nats://host:4222, may name several servers with commas between, a user, and the flow that is meant: nats://host:4222/shop.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from streamflow.broker.redact import shown_url

from .errors import BadArguments
from .tls import TlsFiles


class Protocol(StrEnum):
    GRPC = "grpc"
    HTTP = "http"
    WEBSOCKET = "websocket"
    NATS = "nats"


_SCHEMES: dict[str, tuple[Protocol, bool]] = {
    "grpc": (Protocol.GRPC, False),
    "grpcs": (Protocol.GRPC, True),
    "http": (Protocol.HTTP, False),
    "https": (Protocol.HTTP, True),
    "ws": (Protocol.WEBSOCKET, False),
    "wss": (Protocol.WEBSOCKET, True),
    "websocket": (Protocol.WEBSOCKET, False),
    "nats": (Protocol.NATS, False),
    "tls": (Protocol.NATS, True),
}

_BROKER_PORT = 4222
_FLOW = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class Address:
    """A gateway's host, port and protocol. Of a broker also its whole URL, which may hold a password, and the flow, "" = none named."""

    host: str
    port: int
    protocol: Protocol = Protocol.GRPC
    tls: bool = False
    files: TlsFiles = TlsFiles()  # whom to trust there
    broker_url: str = field(default="", repr=False)
    flow: str = ""

    @property
    def target(self) -> str:
        """`host:port`, an IPv6 host in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def scheme(self) -> str:
        return next(scheme for scheme, kind in _SCHEMES.items() if kind == (self.protocol, self.tls))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.target}"


def parse(host: str, port: int | str | None = None, protocol: str | None = None, tls: bool | None = None) -> Address:
    """The address in `host`, which may be a URL, completed by the keywords; port 80, or 443 with TLS, when none is given.

    Raises `BadArguments` when port, protocol or TLS are given twice, or for a URL with anything behind the port.
    """
    if host.startswith(("nats://", "tls://")):
        return _broker(host, port, protocol, tls)
    scheme, separator, rest = host.rpartition("://")
    kind, secure = _kind(scheme if separator else None, protocol, tls)
    if kind is Protocol.NATS:
        return _broker(f"nats://{host}" if port is None else f"nats://{host}:{port}", None, None, tls)
    name, url_port = _split(rest)
    if url_port is not None and port is not None:
        raise BadArguments(f"port {url_port} in {host!r} and port={port!r}: give one of them")
    number = _port(port if url_port is None else url_port)
    return Address(name, number if number is not None else (443 if secure else 80), kind, secure)


def _broker(url: str, port: int | str | None, protocol: str | None, tls: bool | None) -> Address:
    """The address of a broker; 4222 is its port when none is given."""
    if port is not None or protocol is not None:
        raise BadArguments(f"{shown_url(url)}: give port and protocol in the URL alone")
    scheme, _, rest = url.partition("://")
    servers, _, flow = rest.replace(f",{scheme}://", ",").partition("/")
    if flow and not _FLOW.match(flow):
        raise BadArguments(f"{shown_url(url)}: {flow!r} is no name of a flow")
    host, number = _split(servers.split(",")[0].rpartition("@")[2])
    whole = ",".join(f"{scheme}://{server}" for server in servers.split(","))
    return Address(host, number or _BROKER_PORT, Protocol.NATS, bool(tls) or scheme == "tls", broker_url=whole, flow=flow)


def _kind(scheme: str | None, protocol: str | None, tls: bool | None) -> tuple[Protocol, bool]:
    if scheme is None:
        return _protocol(protocol), bool(tls)
    if protocol is not None:
        raise BadArguments(f"scheme {scheme}:// and protocol={str(protocol)!r}: give one of them")
    if scheme.lower() not in _SCHEMES:
        raise BadArguments(f"scheme {scheme}://: use one of {', '.join(_SCHEMES)}")
    kind, secure = _SCHEMES[scheme.lower()]
    if tls is not None and tls != secure and secure:
        raise BadArguments(f"scheme {scheme}:// and tls=False contradict each other")
    return kind, secure or bool(tls)


def _protocol(name: str | None) -> Protocol:
    if name is None:
        return Protocol.GRPC
    plain = str(getattr(name, "value", name)).lower()
    if plain not in _SCHEMES or _SCHEMES[plain][1]:
        raise BadArguments(f"protocol {name!r}: use one of {', '.join(Protocol)}")
    return _SCHEMES[plain][0]


def _split(rest: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(f"//{rest}")
        name, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadArguments(f"host {rest!r}: {error}") from error
    if not name or parts.path.strip("/") or parts.query or parts.username:
        raise BadArguments(f"host {rest!r}: expected a host name, with or without a port")
    return name, port


def _port(port: int | str | None) -> int | None:
    if port is None:
        return None
    try:
        number = int(port)
    except (TypeError, ValueError):
        raise BadArguments(f"port {port!r}: expected a number") from None
    if not 0 < number < 65536:
        raise BadArguments(f"port {number}: expected 1 to 65535")
    return number
