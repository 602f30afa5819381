"""Generator endpoints whose documents the client wants as they come: each is encoded and sent at once, and the reader's pace is the limit.

A `Stream` is one generator at work for one request. A sync one runs in the executor's thread, which it leaves while it has to wait, so a
slow reader holds up nobody else; an async one is a task on the loop. `Streams` are those of one worker, and hear how far their readers are.
docs/decisions/0009-streaming.md has the rules.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Generator
from contextlib import aclosing
from time import monotonic

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.credit import GONE, SUPERSEDED, WINDOW_BYTES, WINDOW_PARTS, Report
from streamflow.broker.envelope import Envelope, encode
from streamflow.broker.errors import Code, Status, StreamflowError

from .jobs import Abandoned, Dropped, Failure, Job, Outcome, Output, Paused
from .process import Processor

log = logging.getLogger(__name__)

PROBE_S = 1.0  # how often the gateway is asked about each stream: makes good what was lost on the way
LEARN_S = 1.0  # how long another attempt waits to hear where it may go on
GIVE_UP_S = 15.0  # a gateway that is not there for so long does not come back

Send = Callable[[Job, int, Output], None]  # job, position, one document


class Stream:
    """`advance` is entered by the executor's thread, `run` by the job's task, all else on the loop."""

    def __init__(self, job: Job, processor: Processor, home: Streams, source: str) -> None:
        self.job = job
        self.source = source
        self.position = 0  # of the next document
        self.failed_at: int | None = None  # position to which a failure belongs that was found after it
        self.busy_s = 0.0
        self.waiting = False
        self.unheard_since = 0.0  # monotonic seconds; 0.0 = the gateway is there
        self._processor = processor
        self._home = home
        self._items: Generator[Output, None, None] | None = None
        self._wanted = 0  # documents before this one are with the gateway from an earlier attempt
        self._taken = 0
        self._open: deque[tuple[int, int]] = deque()  # position and bytes of what the reader has not taken
        self._sent_bytes = 0
        self._taken_bytes = 0
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
            return self._processor.failure(error, self.job)
        finally:
            self.busy_s += monotonic() - began

    def _advance(self) -> Outcome:
        if self._items is None:
            early = self._processor.start(self.job)
            if early is not None:
                return early
            self._items = self._processor.parts(self.job)
        while (ending := self._end()) is None:
            if not self.has_room:
                return Paused()
            output = next(self._items, None)
            if output is None:
                return Output()
            if (position := self._number(output)) is not None:
                self._home.post(self.job, position, output)
        self._close(self._items)
        return ending

    def _close(self, items: Generator[Output, None, None]) -> None:
        try:
            items.close()
        except Exception as error:
            log.warning("request %s: its generator raised while it was closed: %r", self.job.envelope.request_id, error)

    async def run(self) -> Outcome:
        """Run an async generator to its end."""
        began = monotonic()
        try:
            return self._processor.start(self.job) or await self._iterate() or Output()
        except asyncio.CancelledError:
            ending = self._end()
            if ending is None:
                raise
            return ending
        except Exception as error:
            return self._end() or self._processor.failure(error, self.job)
        finally:
            self.busy_s = monotonic() - began

    async def _iterate(self) -> Outcome | None:
        async with aclosing(self._processor.parts_async(self.job)) as items:
            async for output in items:
                if (position := self._number(output)) is not None:
                    self._home.send(self.job, position, output)
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
        if self._ending is not None or self.job.cancelled:
            return self._ending or Dropped()
        remaining_s = self.job.envelope.remaining_s()
        if remaining_s is None or remaining_s > 0:
            return None
        text = f"{self.job.envelope.endpoint}: the deadline passed after {self.position} documents of the stream"
        return Failure(Status(Code.DEADLINE_EXCEEDED, text, "DeadlineExceeded"))

    # the reader

    @property
    def has_room(self) -> bool:
        return self._ahead < WINDOW_PARTS and self._ahead_bytes < WINDOW_BYTES

    @property
    def _has_much_room(self) -> bool:
        """Worth going on after a wait, which costs a change of threads."""
        return 2 * self._ahead <= WINDOW_PARTS and 2 * self._ahead_bytes <= WINDOW_BYTES

    @property
    def _ahead(self) -> int:
        return self.position - max(self._taken, self._wanted)

    @property
    def _ahead_bytes(self) -> int:
        return self._sent_bytes - self._taken_bytes

    def heard(self, report: Report) -> None:
        """The reader has come further."""
        self.unheard_since = 0.0
        self._taken = max(self._taken, report.taken)
        while self._open and self._open[0][0] < self._taken:
            self._taken_bytes += self._open.popleft()[1]
        if self.job.delivery.attempt > 1 and not self.position:
            self._wanted = report.wanted
            self._news.set()
        elif self.waiting and self._has_much_room:
            self._wake()
        elif self.waiting:
            self._ask_when_large()

    async def learn(self) -> int:
        """Before another attempt starts: the documents that the gateway has. Not knowing costs only parts that it drops."""
        self._home.probe(self)
        try:
            async with asyncio.timeout(LEARN_S):
                await self._news.wait()
        except TimeoutError:
            log.info("request %s: attempt %d starts anew", self.job.envelope.request_id, self.job.delivery.attempt)
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
        if self.job.task is None:
            self._home.submit(self.job)
        else:
            self._news.set()

    def end(self, outcome: Outcome, position: int | None = None) -> None:
        """Have the generator closed as soon as it can be; `outcome` is what came of it."""
        if self._ending is None:
            self._ending, self.failed_at = outcome, position
        self.hurry()

    def hurry(self) -> None:
        """Look at once whether to go on: the job was cancelled, or late."""
        if self.job.task is None:
            self._wake()
        elif not self._interrupted:  # once: its `finally` may take some time
            self._interrupted = True
            self.job.task.cancel()

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


class Streams:
    """The streams of one worker. `await start()` first."""

    def __init__(self, bus: Bus, processor: Processor, send: Send, submit: Callable[[Job], None], lend: Callable[[int], None]) -> None:
        """`send` publishes a document, `submit` gives a job to the executor's thread, `lend` says how many more jobs wait for readers."""
        self.send = send
        self.submit = submit
        self.lend = lend
        self._bus = bus
        self._processor = processor
        self._worker = secrets.token_hex(5)
        self._number = 0
        self._open: dict[str, Stream] = {}
        self._loop = asyncio.get_running_loop()
        self._outgoing: deque[tuple[Job, int, Output]] = deque()
        self._flush_due = False
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._bus.listen(subjects.credit(f"{self._worker}.*"), self._reported)
        self._bus.on_reconnect(self._look_after_all)
        self._sweeper = asyncio.create_task(self._sweep(), name="streams")

    def stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()

    def open(self, job: Job) -> Stream:
        self._number += 1
        stream = Stream(job, self._processor, self, f"{self._worker}.{self._number:x}")
        self._open[stream.source] = stream
        return stream

    def close(self, stream: Stream) -> None:
        """The generator has ended."""
        self._open.pop(stream.source, None)

    # from the executor's thread

    def post(self, job: Job, position: int, output: Output) -> None:
        """Have the loop send a document. One wake-up serves all that came since the last one."""
        self._outgoing.append((job, position, output))
        if not self._flush_due:
            self._flush_due = True
            try:
                self._loop.call_soon_threadsafe(self._flush)
            except RuntimeError:  # the loop is closed: the process is ending and the delivery goes to another replica
                return

    def _flush(self) -> None:
        self._flush_due = False
        while self._outgoing:
            self.send(*self._outgoing.popleft())

    # readers

    def probe(self, stream: Stream) -> None:
        """Ask the gateway how far the reader is. It also learns whom to report to, and from which attempt parts will come."""
        envelope = stream.job.envelope
        question = Envelope(
            envelope.request_id, envelope.flow, run=envelope.run, stream=True, final=False, source=stream.source,
            attempt=stream.job.delivery.attempt,
        )  # fmt: skip
        try:
            self._bus.publish(envelope.reply, encode(question), subjects.credit(stream.source))
        except StreamflowError as error:
            log.debug("request %s: its gateway is not asked: %s", envelope.request_id, error)

    def _reported(self, subject: bytes, _reply: bytes, header: bytes | None, payload: bytes) -> None:
        stream = self._open.get(subject.decode().partition(".credit.")[2])
        if stream is None:
            return
        if header is not None and b" 503" in header[:14]:  # no responders (ADR-22): the gateway is cut off or gone
            stream.unheard_since = stream.unheard_since or monotonic()
        elif payload in (GONE, SUPERSEDED):
            stream.end(Dropped() if payload == GONE else Abandoned())
        else:
            try:
                stream.heard(Report.decode(payload))
            except ValueError:
                log.warning("not a report on a stream: %r", payload[:100])

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            self._look_after_all()

    def _look_after_all(self) -> None:
        if self._bus.connected:
            for stream in list(self._open.values()):
                self._look_after(stream)

    def _look_after(self, stream: Stream) -> None:
        if stream.unheard_since and monotonic() - stream.unheard_since > GIVE_UP_S:
            log.info("request %s: nobody is there to read its stream: dropped", stream.job.envelope.request_id)
            stream.end(Dropped())
        elif (remaining_s := stream.job.envelope.remaining_s()) is not None and remaining_s < 0:
            stream.hurry()
        else:
            self.probe(stream)
