"""The thread in which synchronous endpoints run, one execution after the other, so that user code never blocks the event loop.

Hand-over is cheap at both ends: a C queue in, and one wake-up of the loop for all executions that ended since the last one.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Generic, TypeVar

E = TypeVar("E")
O = TypeVar("O")  # noqa: E741


class Runner(Generic[E, O]):
    """Runs `work(execution)` in its thread and `done(execution, outcome)` on the loop. `work` must not raise."""

    def __init__(self, work: Callable[[E], O], done: Callable[[E, O], None], name: str) -> None:
        self._work = work
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[float, E] | None] = SimpleQueue()  # (time.monotonic() of arrival, execution); None: look around
        self._spare: SimpleQueue[E] = SimpleQueue()
        self._stopping = False
        self._ended: deque[tuple[E, O]] = deque()
        self._flush_due = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def ahead(self) -> int:
        """Executions to hold beyond what the time of an execution suggests."""
        return 0

    def submit(self, execution: E, *, is_spare: bool = False) -> None:
        """`is_spare`: to be run when nothing else is there."""
        if is_spare:
            self._spare.put(execution)
            self._queue.put(None)
        else:
            self._queue.put((monotonic(), execution))

    def post(self, call: Callable[[], None]) -> None:
        """From the thread: run `call` on the loop, now rather than when the execution ends (a stream part)."""
        self._loop.call_soon_threadsafe(call)

    def hurry(self) -> None:
        """No execution waits for company any more."""

    def stop(self) -> None:
        """End the thread after what it has; an execution that never returns dies with the process (daemon thread)."""
        self._stopping = True
        self._queue.put(None)

    def _run(self) -> None:
        while (execution := self._next()) is not None:
            self._deliver(((execution, self._work(execution)),))

    def _next(self) -> E | None:
        """Waits for it. None: there is nothing left, and nothing will come."""
        while True:
            try:
                arrival = self._queue.get_nowait()
            except Empty:
                with suppress(Empty):
                    return self._spare.get_nowait()
                if self._stopping:
                    return None
                arrival = self._queue.get()
            if arrival is not None:
                return arrival[1]

    def _deliver(self, ended: Iterable[tuple[E, O]]) -> None:
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
