"""The thread in which synchronous endpoints run, one job after the other, so that user code never blocks the event loop.

Hand-over is cheap at both ends: a C queue in, and one wake-up of the loop for all jobs that ended since the last one.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from time import monotonic
from typing import Generic, TypeVar

J = TypeVar("J")
O = TypeVar("O")  # noqa: E741


class Runner(Generic[J, O]):
    """Runs `work(job)` in its thread and `done(job, outcome)` on the loop. `work` must not raise."""

    def __init__(self, work: Callable[[J], O], done: Callable[[J, O], None], name: str) -> None:
        self._work = work
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[float, J] | None] = SimpleQueue()  # (time.monotonic() of arrival, job)
        self._ended: deque[tuple[J, O]] = deque()
        self._flush_due = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def ahead(self) -> int:
        """Jobs to hold beyond what the time of a job suggests."""
        return 0

    def submit(self, job: J) -> None:
        self._queue.put((monotonic(), job))

    def post(self, call: Callable[[], None]) -> None:
        """From the thread: run `call` on the loop, now rather than when the job ends (a stream part)."""
        self._loop.call_soon_threadsafe(call)

    def hurry(self) -> None:
        """No job waits for company any more."""

    def stop(self) -> None:
        """End the thread after what it has; a job that never returns dies with the process (daemon thread)."""
        self._queue.put(None)

    def _run(self) -> None:
        while (arrival := self._queue.get()) is not None:
            _, job = arrival
            self._deliver(((job, self._work(job)),))

    def _deliver(self, ended: Iterable[tuple[J, O]]) -> None:
        """From the thread: what ended, in one wake-up of the loop."""
        self._ended.extend(ended)
        if self._ended and not self._flush_due:
            self._flush_due = True
            self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._flush)
        except RuntimeError:  # the loop is closed: the process is ending and the deliveries go to another replica
            return

    def _flush(self) -> None:
        self._flush_due = False
        while self._ended:
            self._done(*self._ended.popleft())
