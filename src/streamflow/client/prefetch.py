"""How far one post() reads ahead of its caller: a number of requests, and the bytes that these and their answers hold.

A request counts from the moment it is sent until the caller takes its answer. Under way it counts as itself or as the answer that is to be
expected, whichever is larger; then as its answer. So a slow caller, or a slow first answer where the order of the input is kept, holds back
the input before much has piled up.
"""

from __future__ import annotations

import asyncio
import sys

from .results import DataRequest
from .transport import Outgoing

MOST_REQUESTS = 1000
MOST_BYTES = 4 << 20
LEAST = 4  # requests of any size: some on their way while others are worked on
_FIRST_ANSWER_BYTES = 64 << 10  # expected as long as none is known: 64 requests may be open before the first answer
_WEIGHT = 1 / 8  # of the latest answer in what is expected of the next


class Prefetch:
    """`requests` at a time and no further one once `held_bytes` has come to `most_bytes`, both 0 = no limit. One task may wait for room."""

    def __init__(self, requests: int = MOST_REQUESTS, most_bytes: int = MOST_BYTES) -> None:
        self._requests = requests if requests > 0 else sys.maxsize
        self._most_bytes = most_bytes if most_bytes > 0 else sys.maxsize
        self._open = 0
        self._expected_bytes: float = _FIRST_ANSWER_BYTES
        self._freed = asyncio.Event()
        self.held_bytes = 0

    async def room(self) -> None:
        """Return once one more request may be read; it counts from then on."""
        while not self._has_room():
            self._freed.clear()
            await self._freed.wait()
        self._open += 1

    def sent(self, request: Outgoing) -> None:
        """`request` is under way. To be called again when its size is known, and for each attempt."""
        self._hold(request, max(len(request.body), round(self._expected_bytes)))

    def answered(self, request: Outgoing, response: DataRequest) -> None:
        """The answer is there; `request` still counts with what it keeps for another attempt."""
        self._expected_bytes += (response.size_bytes - self._expected_bytes) * _WEIGHT
        self._hold(request, len(request.body) + response.size_bytes)

    def settled(self, request: Outgoing, response: DataRequest) -> None:
        """There will be no other attempt."""
        self._hold(request, response.size_bytes)

    def taken(self, response: DataRequest) -> None:
        """The caller has got the answer."""
        self._open -= 1
        self.held_bytes -= response.size_bytes
        self._freed.set()

    def _has_room(self) -> bool:
        return self._open < min(self._requests, LEAST) or (self._open < self._requests and self.held_bytes < self._most_bytes)

    def _hold(self, request: Outgoing, size_bytes: int) -> None:
        self.held_bytes += size_bytes - request.held_bytes
        request.held_bytes = size_bytes
        self._freed.set()
