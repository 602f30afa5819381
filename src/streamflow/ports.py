"""The ports of a flow, held by its supervisor while gateways come and go: no connection is refused when one takes over from another.

HTTP and WebSocket: gateways inherit the listening socket, so that clients in its queue are served by whoever is next. gRPC cannot take a
socket over: its ports are bound here, without listening, so that nobody else gets them, and gateways share them (SO_REUSEPORT).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

Address = tuple[str, int]


class HeldPorts:
    """Sockets by address. `hold` may be called again with other addresses; what was held stays until `close`."""

    def __init__(self) -> None:
        self._sockets: dict[tuple[Address, bool], socket.socket] = {}
        self._claims: list[socket.socket] = []

    def hold(self, inherited: Iterable[Address], shared: Iterable[Address]) -> dict[str, int]:
        """Descriptors by "host:port", of all that could be had: a gateway says by itself which port is taken."""
        wanted = [*((address, False) for address in inherited), *((address, True) for address in shared)]
        for address, is_shared in wanted:
            if (address, is_shared) not in self._sockets and address[1]:
                with contextlib.suppress(OSError):
                    self._sockets[address, is_shared] = self._share(address) if is_shared else _bound(address)
        return {f"{key[0][0]}:{key[0][1]}": self._sockets[key].fileno() for key in wanted if key in self._sockets}

    def close(self) -> None:
        """Let go of all: once the last gateway closes its own, connections are refused."""
        for held in [*self._sockets.values(), *self._claims]:
            held.close()
        self._sockets.clear()
        self._claims.clear()

    def _share(self, address: Address) -> socket.socket:
        """A socket at `address`, which no other flow has or shares. Raises `OSError`."""
        # Other flows of this user could share the port just as gateways do. The UDP port of the same number can be had only once.
        self._claims.append(_bound(address, socket.SOCK_DGRAM))
        with _bound(address) as probe:
            probe.listen()
        return _bound(address, options=(socket.SO_REUSEADDR, socket.SO_REUSEPORT))


def _bound(
    address: Address, kind: socket.SocketKind = socket.SOCK_STREAM, options: Iterable[int] = (socket.SO_REUSEADDR,)
) -> socket.socket:
    held = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, kind)
    try:
        for option in options if kind is socket.SOCK_STREAM else ():
            held.setsockopt(socket.SOL_SOCKET, option, 1)
        held.bind(address)
    except OSError:
        held.close()
        raise
    return held
