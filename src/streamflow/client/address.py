"""Where a client connects: one URL, or keywords, never both for the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from .errors import BadArguments


class Protocol(StrEnum):
    GRPC = "grpc"
    HTTP = "http"
    WEBSOCKET = "websocket"


_SCHEMES: dict[str, tuple[Protocol, bool]] = {
    "grpc": (Protocol.GRPC, False),
    "grpcs": (Protocol.GRPC, True),
    "http": (Protocol.HTTP, False),
    "https": (Protocol.HTTP, True),
    "ws": (Protocol.WEBSOCKET, False),
    "wss": (Protocol.WEBSOCKET, True),
    "websocket": (Protocol.WEBSOCKET, False),
}


@dataclass(frozen=True, slots=True)
class Address:
    """A gateway's host, port and protocol."""

    host: str
    port: int
    protocol: Protocol = Protocol.GRPC
    tls: bool = False

    @property
    def target(self) -> str:
        """`host:port`, an IPv6 host in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.protocol.value}{'s' if self.tls else ''}://{self.target}"


def parse(host: str, port: int | str | None = None, protocol: str | None = None, tls: bool | None = None) -> Address:
    """The address in `host`, which may be a URL, completed by the keywords; port 80, or 443 with TLS, when none is given.

    Raises `BadArguments` when port, protocol or TLS are given twice, or for a URL with anything behind the port.
    """
    scheme, separator, rest = host.rpartition("://")
    kind, secure = _kind(scheme if separator else None, protocol, tls)
    name, url_port = _split(rest)
    if url_port is not None and port is not None:
        raise BadArguments(f"port {url_port} in {host!r} and port={port!r}: give one of them")
    number = _port(port if url_port is None else url_port)
    return Address(name, number if number is not None else (443 if secure else 80), kind, secure)


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
