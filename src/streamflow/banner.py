"""What is on the screen while a flow serves: a banner of a few lines, and one line for what happens later."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamflow.broker.redact import shown_url

_NAMES = {"http": "HTTP", "grpc": "gRPC", "websocket": "WebSocket", "admin": "Admin"}
_SCHEMES = {"http": "http", "grpc": "grpc", "websocket": "ws", "admin": "http"}
_LOOPBACK = ("127.", "::1", "localhost")
_ANY_HOST = {"0.0.0.0", "::", ""}


@dataclass(slots=True)
class Board:
    """What is known about a started flow."""

    kind: str  # Flow, Deployment, Gateway
    name: str
    version: str
    addresses: dict[str, tuple[str, int]] = field(default_factory=dict)
    closed: bool = False  # callers of other machines are refused, whatever it listens on
    broker_url: str = ""
    embedded: bool = False
    store: str = ""  # data folder; "" = a temporary one
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """The banner."""
        rows = [row for protocol, (host, port) in self.addresses.items() for row in _rows(protocol, host, port, self.closed)]
        url = shown_url(self.broker_url)
        rows.append(("Broker", f"{url} (embedded)" if self.embedded else url))
        if self.embedded:
            rows.append(("Data", self.store or "temporary, deleted at the end (--store DIR keeps it)"))
        rows.append(("Stop", "Ctrl-C finishes what runs, a second one does not wait"))
        title = f"{self.kind} {self.name!r} is ready to serve! ({self.seconds:.1f} s, streamflow {self.version})"
        width = max(len(label) for label, _ in rows)
        return [title, *(f"  {label:<{width}}  {text}" for label, text in rows)]


def _rows(protocol: str, host: str, port: int, closed: bool) -> list[tuple[str, str]]:
    """Rows of one protocol: the local address, the private one when it listens on all and lets others in, and the pages of HTTP."""
    scheme = _SCHEMES.get(protocol, protocol)
    hosts = [host]
    if host in _ANY_HOST:
        hosts = ["127.0.0.1", *([] if closed else private_addresses())]
    urls = [f"{scheme}://{each}:{port}" for each in hosts]
    note = "  (other machines are refused)" if closed and not host.startswith(_LOOPBACK) else ""
    rows = [(_NAMES.get(protocol, protocol), "  ".join(urls) + note)]
    if protocol == "http":
        rows.append(("Docs", f"{urls[0]}/docs"))
    return rows


def private_addresses() -> list[str]:
    """This machine's address in its own network, if it has one. Nothing is sent: connecting a datagram socket only picks a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: an address that exists nowhere
        except OSError:
            return []
        address = str(probe.getsockname()[0])
    return [] if address.startswith("127.") else [address]


def parse_addresses(raw: Mapping[str, list[object]]) -> dict[str, tuple[str, int]]:
    """Addresses as a gateway reports them, `{"http": ["0.0.0.0", 8080]}`."""
    return {protocol: (str(host), int(str(port))) for protocol, (host, port) in raw.items()}
