"""The thread in which synchronous endpoints run, one job after the other, so that user code never blocks the event loop.

Hand-over is cheap at both ends: a C queue in, and one wake-up of the loop for all jobs that ended since the last one.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

J = TypeVar("J")
O = TypeVar("O")  # noqa: E741


class Runner(Generic[J, O]):
    """Runs `work(job)` in its thread and `done(job, outcome)` on the loop. `work` must not raise."""

    def __init__(self, work: Callable[[J], O], done: Callable[[J, O], None], name: str) -> None:
        self._work = work
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[J | None] = SimpleQueue()
        self._ended: deque[tuple[J, O]] = deque()
        self._flush_due = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: J) -> None:
        self._queue.put(job)

    def post(self, call: Callable[[], None]) -> None:
        """From the thread: run `call` on the loop, now rather than when the job ends (a stream part)."""
        self._loop.call_soon_threadsafe(call)

    def stop(self) -> None:
        """End the thread after what it has; a job that never returns dies with the process (daemon thread)."""
        self._queue.put(None)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            self._ended.append((job, self._work(job)))
            if not self._flush_due:
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
