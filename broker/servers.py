"""Which server of a cluster to connect to next: the one that was left, or tried in vain, the longest time ago.

nats-py's own choice is a shuffled list: it may go back to the server that it has just left because that one is frozen or cut off.
"""

from __future__ import annotations

import random
import time
from typing import Any, Protocol, TypeVar
from urllib.parse import ParseResult


class Server(Protocol):
    @property
    def uri(self) -> ParseResult: ...


S = TypeVar("S", bound=Server)


class Servers:
    """`choose` is nats-py's `reconnect_to_server_handler`."""

    def __init__(self, wait_s: float) -> None:
        """`wait_s`: between two tries of the same server."""
        self._wait_s = wait_s
        self._left: dict[str, float] = {}
        self._tried: dict[str, float] = {}

    def left(self, place: str) -> None:
        """The connection to `place` (host:port) is broken or given up."""
        self._left[place] = time.monotonic()

    def choose(self, servers: list[S], _info: dict[str, Any]) -> tuple[S, float]:
        """The server, and the seconds to wait before it is tried."""
        now = time.monotonic()
        chosen = min(servers, key=lambda server: (self._last_trouble(server.uri.netloc), random.random()))
        place = chosen.uri.netloc
        pause_s = max(0.0, self._tried.get(place, 0.0) + self._wait_s - now)
        self._tried[place] = now + pause_s
        return chosen, pause_s

    def _last_trouble(self, place: str) -> float:
        return max(self._left.get(place, 0.0), self._tried.get(place, 0.0))
