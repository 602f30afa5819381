"""One generator at work for a client that wants its documents as they come: when it may go on, how far its reader is, how it ends.

A sync generator runs in the executor's thread, which it leaves while it has to wait, so a slow reader holds up nobody else; an async one is
a task on the loop. `streaming.py` has those of one worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Generator
from contextlib import aclosing
from time import monotonic
from typing import Protocol

from streamflow.broker.credit import LEAST_BYTES, WINDOW_PARTS, Report
from streamflow.broker.errors import Code, Status

from .executions import Dropped, Execution, Failure, Outcome, Output, Paused
from .process import Processor

log = logging.getLogger(__name__)

LEARN_S = 1.0  # how long another attempt waits to hear where it may go on
QUIET_LOOKS = 8  # a stream without news is asked about at every so many-th look


class Home(Protocol):
    """What a stream needs of its worker (`streaming.Streams`). Only `post` is called from the executor's thread."""

    def post(self, execution: Execution, position: int, output: Output) -> None:
        """Send a document, from the executor's thread."""

    def send(self, execution: Execution, position: int, output: Output) -> None:
        """Send a document, on the loop."""

    def submit(self, execution: Execution) -> None:
        """Have the executor's thread enter `Stream.advance`."""

    def lend(self, executions: int) -> None:
        """So many more streams (or, negative, fewer) wait for their readers."""

    def probe(self, stream: Stream) -> None:
        """Ask the gateway how far the reader is."""


class Stream:
    """`advance` is entered by the executor's thread, `run` by the execution's task, all else on the loop."""

    def __init__(self, execution: Execution, processor: Processor, home: Home, source: str) -> None:
        self.execution = execution
        self.source = source
        self.position = 0  # of the next document
        self.failed_at: int | None = None  # position to which a failure belongs that was found after it
        self.busy_s = 0.0
        self.waiting = False
        self.unheard_since = 0.0  # monotonic seconds; 0.0 = the gateway is there
        self.unanswered = False  # the last question
        self._processor = processor
        self._home = home
        self._items: Generator[Output, None, None] | None = None
        self._wanted = 0  # documents before this one are with the gateway from an earlier attempt
        self._taken = 0
        self._open: deque[tuple[int, int]] = deque()  # position and bytes of what the reader has not taken
        self._sent_bytes = 0
        self._taken_bytes = 0
        self._window_bytes = LEAST_BYTES
        self._looks = 0  # since the last news
        self._seen = (-1, -1)  # position and taken at the last look
        self._ending: Outcome | None = None
        self._unstored = 0
        self._when_stored: Callable[[], None] | None = None
        self._news = asyncio.Event()
        self._interrupted = False

    # the generator

    def advance(self) -> Outcome:
        """Run the generator until it ends, or has to wait (`Paused`: enter again)."""
        began = monotonic()
        try:
            return self._advance()
        except Exception as error:
            return self._processor.failure(error, self.execution)
        finally:
            self.busy_s += monotonic() - began

    def _advance(self) -> Outcome:
        if self._items is None:
            early = self._processor.start(self.execution)
            if early is not None:
                return early
            self._items = self._processor.parts(self.execution)
        while (ending := self._end()) is None:
            if not self.has_room:
                return Paused()
            output = next(self._items, None)
            if output is None:
                return Output()
            if (position := self._number(output)) is not None:
                self._home.post(self.execution, position, output)
        self._close(self._items)
        return ending

    def _close(self, items: Generator[Output, None, None]) -> None:
        try:
            items.close()
        except Exception as error:
            log.warning("request %s: its generator raised while it was closed: %r", self.execution.envelope.request_id, error)

    async def run(self) -> Outcome:
        """Run an async generator to its end."""
        began = monotonic()
        try:
            return self._processor.start(self.execution) or await self._iterate() or Output()
        except asyncio.CancelledError:
            ending = self._end()
            if ending is None:
                raise
            return ending
        except Exception as error:
            return self._end() or self._processor.failure(error, self.execution)
        finally:
            self.busy_s = monotonic() - began

    async def _iterate(self) -> Outcome | None:
        async with aclosing(self._processor.parts_async(self.execution)) as items:
            async for output in items:
                if (position := self._number(output)) is not None:
                    self._home.send(self.execution, position, output)
                await asyncio.sleep(0)  # it leaves before the endpoint goes on, which may compute for long without a pause
                await self._until_room()
                if (ending := self._end()) is not None:
                    return ending
        return self._end()

    def _number(self, output: Output) -> int | None:
        """The position of `output`; None when the gateway has it from an earlier attempt."""
        position = self.position
        self.position += 1
        if position < self._wanted:
            return None
        self._open.append((position, len(output.body)))
        self._sent_bytes += len(output.body)
        return position

    def _end(self) -> Outcome | None:
        """How the generator is to end now, None while it may go on."""
        if self._ending is not None or self.execution.cancelled:
            return self._ending or Dropped()
        remaining_s = self.execution.envelope.remaining_s()
        if remaining_s is None or remaining_s > 0:
            return None
        text = f"{self.execution.envelope.endpoint}: the deadline passed after {self.position} documents of the stream"
        return Failure(Status(Code.DEADLINE_EXCEEDED, text, "DeadlineExceeded"))

    # the reader

    @property
    def has_room(self) -> bool:
        return self._ahead < WINDOW_PARTS and self._ahead_bytes < self._window_bytes

    @property
    def _has_much_room(self) -> bool:
        """Worth going on after a wait, which costs a change of threads."""
        return 2 * self._ahead <= WINDOW_PARTS and 2 * self._ahead_bytes <= self._window_bytes

    @property
    def _ahead(self) -> int:
        return self.position - max(self._taken, self._wanted)

    @property
    def _ahead_bytes(self) -> int:
        return self._sent_bytes - self._taken_bytes

    def heard(self, report: Report) -> None:
        """The reader has come further."""
        self.unheard_since = 0.0
        self.unanswered = False
        self._window_bytes = report.window_bytes
        is_news = report.taken > self._taken
        self._taken = max(self._taken, report.taken)
        while self._open and self._open[0][0] < self._taken:
            self._taken_bytes += self._open.popleft()[1]
        if self.execution.attempt > 1 and not self.position:
            self._wanted = report.wanted
            self._news.set()
        elif self.waiting and self._has_much_room:
            self._wake()
        elif self.waiting and is_news:  # asked already, and told as soon as the reader takes one more
            self._ask_when_large()

    def is_due(self) -> bool:
        """At each look: whether to ask the gateway now. Where nothing happens, and it has answered, less and less often."""
        seen = (self.position, self._taken)
        self._looks = 1 if seen != self._seen or self.unanswered else self._looks + 1
        self._seen = seen
        return self._looks.bit_count() == 1 if self._looks < QUIET_LOOKS else self._looks % QUIET_LOOKS == 0

    async def learn(self) -> int:
        """Before another attempt starts: the documents that the gateway has. Not knowing costs only parts that it drops."""
        self._home.probe(self)
        try:
            async with asyncio.timeout(LEARN_S):
                await self._news.wait()
        except TimeoutError:
            log.info("request %s: attempt %d starts anew", self.execution.envelope.request_id, self.execution.attempt)
        self._news.clear()
        return self._wanted

    def park(self) -> None:
        """The executor's thread has left the generator: have it enter again when there is room."""
        self._wait()
        if self.has_room or self._end() is not None:
            self._wake()
        else:
            self._ask_when_large()

    async def _until_room(self) -> None:
        while not self.has_room and self._end() is None:
            self._wait()
            self._ask_when_large()
            try:
                await self._news.wait()
            finally:
                self._wake()
                self._news.clear()

    def _ask_when_large(self) -> None:
        """The gateway reports by count. When it is the bytes that fill the window it has to be asked."""
        if self._ahead < WINDOW_PARTS:
            self._home.probe(self)

    def _wait(self) -> None:
        self.waiting = True
        self._home.lend(1)

    def _wake(self) -> None:
        if not self.waiting:
            return
        self.waiting = False
        self._home.lend(-1)
        if self.execution.task is None:
            self._home.submit(self.execution)
        else:
            self._news.set()

    def end(self, outcome: Outcome, position: int | None = None) -> None:
        """Have the generator closed as soon as it can be; `outcome` is what came of it."""
        if self._ending is None:
            self._ending, self.failed_at = outcome, position
        self.hurry()

    def hurry(self) -> None:
        """Look at once whether to go on: the execution was cancelled, or late."""
        if self.execution.task is None:
            self._wake()
        elif not self._interrupted:  # once: its `finally` may take some time
            self._interrupted = True
            self.execution.interrupt(self.execution.task)

    # what the broker has of it

    def storing(self) -> None:
        self._unstored += 1

    def stored(self) -> None:
        self._unstored -= 1
        if not self._unstored and self._when_stored is not None:
            self._when_stored()

    def defer(self, call: Callable[[], None]) -> bool:
        """Whether parts are still on their way to the broker; then `call` follows when it has them."""
        self._when_stored = call if self._unstored else None
        return self._unstored > 0
