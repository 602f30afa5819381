"""Where batches run: those of sync endpoints in the executor's thread, those of async ones on the loop.

Greedy by default: whoever is idle takes what is there, and while a call runs the next batch gathers. So a lone request waits for nobody,
and batches grow with the load. An endpoint makes one call at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from queue import Empty
from time import monotonic

from .batching import Batcher
from .executions import Execution, Outcome
from .invoke import Invoker
from .process import Processor
from .runner import Runner
from .waiting import Member, Waiting

log = logging.getLogger(__name__)

Done = Callable[[Execution, Outcome], None]


def runner_for(invoker: Invoker, processor: Processor, done: Done, name: str) -> Runner[Execution, Outcome]:
    """The runner for an executor: the plain one when none of its endpoints batches."""
    if any(spec.batching for spec in invoker.endpoints.values()):
        return BatchRunner(invoker, processor, done, name)
    return Runner(processor.run, done, name)


class BatchRunner(Runner[Execution, Outcome]):
    """A runner for executors with batching endpoints, sync and async; executions for other sync endpoints run in between, oldest first."""

    def __init__(self, invoker: Invoker, processor: Processor, done: Done, name: str) -> None:
        self._batcher = Batcher(processor, invoker)
        self._lanes = {
            spec.name: LoopBatches(self._batcher, done) for spec in invoker.endpoints.values() if spec.batching and spec.is_async
        }
        self._waiting = Waiting()
        self._plain: deque[tuple[float, Execution]] = deque()
        super().__init__(processor.run, done, name)

    @property
    def ahead(self) -> int:
        return self._batcher.ahead

    def submit(self, execution: Execution, *, is_spare: bool = False) -> None:
        lane = self._lanes.get(execution.spec.name) if execution.spec is not None else None
        if lane is not None:
            lane.submit(execution)
        else:
            super().submit(execution)

    def hurry(self) -> None:
        self._waiting.hurry = True
        self._queue.put(None)  # look at the flags
        for lane in self._lanes.values():
            lane.hurry()

    def stop(self) -> None:
        self._stopping = True
        self.hurry()
        for lane in self._lanes.values():
            lane.stop()

    def _run(self) -> None:
        while self._plain or self._waiting or not (self._stopping and self._queue.empty()):
            self._gather()
            self._run_oldest()

    def _gather(self) -> None:
        """Take what lies in the queue, until there is enough for a batch; when there is nothing to run, wait for it."""
        rest_s = 0.0 if self._plain else self._waiting.rest_s(monotonic())
        try:
            arrival = self._queue.get(timeout=rest_s)
            while arrival is None or not self._sort(*arrival):
                arrival = self._queue.get_nowait()
        except Empty:
            return

    def _sort(self, arrived: float, execution: Execution) -> bool:
        """Put `execution` where it waits; whether there is enough for a batch now."""
        if execution.spec is None or execution.spec.batching is None:
            self._plain.append((arrived, execution))
            return False
        member = self._batcher.admit(execution, arrived)
        if isinstance(member, Member):
            return self._waiting.add(member)
        self._deliver(((execution, member),))
        return False

    def _run_oldest(self) -> None:
        now = monotonic()
        since = self._waiting.due_since(now)
        if self._plain and (since is None or self._plain[0][0] < since):
            _, execution = self._plain.popleft()
            self._deliver(((execution, self._work(execution)),))
        elif since is not None:
            for ended in self._batcher.run(self._waiting.take(now)):
                self._deliver(ended)


class LoopBatches:
    """The batches of one async endpoint, all on the loop."""

    def __init__(self, batcher: Batcher, done: Done) -> None:
        self._batcher = batcher
        self._done = done
        self._waiting = Waiting()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, execution: Execution) -> None:
        member = self._batcher.admit(execution, monotonic())
        if not isinstance(member, Member):
            self._done(execution, member)
            return
        self._waiting.add(member)
        self._look()

    def hurry(self) -> None:
        self._waiting.hurry = True
        self._look()

    def stop(self) -> None:
        """Abandon what runs: the process is ending and its deliveries go to another replica."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _look(self) -> None:
        """Run what is due, unless a call is running, and look again when something will be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rest_s = self._waiting.rest_s(monotonic())
        if self._task is not None or rest_s is None:
            return
        loop = asyncio.get_running_loop()
        if rest_s > 0:
            self._timer = loop.call_later(rest_s, self._look)
        else:
            # A task starts in the loop's next turn: deliveries that arrive together share the first batch.
            self._task = loop.create_task(self._serve())
            self._task.add_done_callback(self._served)

    async def _serve(self) -> None:
        while pieces := self._waiting.take(monotonic()):
            async with aclosing(self._batcher.arun(pieces)) as rounds:
                async for ended in rounds:
                    for execution, outcome in ended:
                        self._done(execution, outcome)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            return
        if task.exception() is not None:
            log.error("deliveries were left to their redelivery", exc_info=task.exception())
        self._look()
