"""Requests that wait for their answer, by request id. Register first, then publish; late, duplicate and unknown answers are counted and
dropped."""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from streamflow.broker.envelope import Envelope

from .sequence import Sequence

log = logging.getLogger(__name__)

TICK_S = 0.02
ANSWERED = 1024  # requests whose deadlines may be kept, beside as many as are open


@dataclass(slots=True)
class Waiting:
    """One open request. `on_answer` gets its answer, or `sequence` the parts of a stream; `first` is what was published, to ask again."""

    envelope: Envelope
    on_answer: Callable[[Envelope], object]
    since: float  # monotonic seconds
    first: Envelope | None = None
    sequence: Sequence | None = None


class Correlator:
    """The pending table, with one timer for all deadlines."""

    def __init__(self, on_late: Callable[[Waiting], None]) -> None:
        self._open: dict[str, Waiting] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._on_late = on_late
        self.unmatched = 0

    def __len__(self) -> int:
        return len(self._open)

    def open(self) -> list[Waiting]:
        return list(self._open.values())

    def is_open(self, waiting: Waiting) -> bool:
        return self._open.get(waiting.envelope.request_id) is waiting

    def register(self, waiting: Waiting) -> None:
        envelope = waiting.envelope
        self._open[envelope.request_id] = waiting
        if envelope.deadline:
            if len(self._deadlines) > 2 * len(self._open) + ANSWERED:
                self._forget_answered()
            heapq.heappush(self._deadlines, (envelope.deadline, envelope.request_id))

    def _forget_answered(self) -> None:
        """Clients may give each request as long as they like, and have its answer at once."""
        self._deadlines = [entry for entry in self._deadlines if entry[1] in self._open]
        heapq.heapify(self._deadlines)

    def forget(self, request_id: str) -> Waiting | None:
        return self._open.pop(request_id, None)

    def find(self, request_id: str) -> Waiting | None:
        return self._open.get(request_id)

    def resolve(self, answer: Envelope) -> None:
        """Hand `answer` to who waits for it; a stream stays open until it has all its parts."""
        waiting = self._open.get(answer.request_id)
        if waiting is None:
            self.unmatched += 1
        elif waiting.sequence is None:
            del self._open[answer.request_id]
            waiting.on_answer(answer)
        elif waiting.sequence.arrive(answer):
            del self._open[answer.request_id]

    async def watch_deadlines(self) -> None:
        """Report requests whose deadline has passed, within `TICK_S`."""
        while True:
            await asyncio.sleep(TICK_S)
            now = time.time()
            while self._deadlines and self._deadlines[0][0] <= now:
                _, request_id = heapq.heappop(self._deadlines)
                waiting = self._open.pop(request_id, None)
                if waiting is not None:
                    self._on_late(waiting)
