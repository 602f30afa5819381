"""Free ports for a gateway whose user gave none."""

from __future__ import annotations

import random
import socket

from streamflow.broker.errors import RuntimeFailToStart

FIRST, LAST = 49152, 65535  # IANA's range for private use, as Jina's
_TRIES = 200


def choose(ports: list[int], host: str = "0.0.0.0") -> list[int]:
    """`ports` with each 0 replaced by a random port of the private range that nobody listens on at `host` now."""
    taken = {port for port in ports if port}
    chosen = []
    for port in ports:
        port = port or _free(host, taken)
        taken.add(port)
        chosen.append(port)
    return chosen


def _free(host: str, taken: set[int]) -> int:
    for _ in range(_TRIES):
        port = random.randint(FIRST, LAST)
        if port not in taken and _is_free(host, port):
            return port
    raise RuntimeFailToStart(f"gateway: no free port found at {host} between {FIRST} and {LAST}")


def _is_free(host: str, port: int) -> bool:
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError:
        return False
    return True
