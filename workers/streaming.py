"""The streams of one worker: what they send leaves here, and here they hear how far their readers are.

docs/decisions/0009-streaming.md has the rules.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable
from time import monotonic

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.credit import GONE, SUPERSEDED, Report
from streamflow.broker.envelope import Envelope, encode
from streamflow.broker.errors import StreamflowError

from .executions import Abandoned, Dropped, Execution, Output
from .process import Processor
from .stream import Stream

log = logging.getLogger(__name__)

PROBE_S = 1.0  # how often each stream is looked after, and its gateway asked if there is news: makes good what was lost on the way
TURNS = 250  # in which all streams are looked after, at most: one that is alone needs one
GIVE_UP_S = 15.0  # a gateway that is not there for so long does not come back

Send = Callable[[Execution, int, Output], None]  # execution, position, one document


class Streams:
    """The streams of one worker. `await start()` first."""

    def __init__(
        self, bus: Bus, place: str, processor: Processor, send: Send, submit: Callable[[Execution], None], lend: Callable[[int], None]
    ) -> None:
        """`place` is the executor's `subjects.credit_place`; `send` publishes a document, `submit` gives an execution to the executor's
        thread, `lend` says how many more of them wait for readers."""
        self._send = send
        self._submit = submit
        self._lend = lend
        self._bus = bus
        self._processor = processor
        self._worker = f"{place}.{secrets.token_hex(5)}"
        self._number = 0
        self._open: dict[str, Stream] = {}
        self._loop = asyncio.get_running_loop()
        self._outgoing: deque[tuple[Execution, int, Output]] = deque()
        self._flush_due = False
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._bus.listen(subjects.credit(f"{self._worker}.*"), self._reported)
        self._bus.on_reconnect(self._ask_all)
        self._sweeper = asyncio.create_task(self._sweep(), name="streams")

    def stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()

    def open(self, execution: Execution) -> Stream:
        self._number += 1
        stream = Stream(execution, self._processor, self, f"{self._worker}.{self._number:x}")
        self._open[stream.source] = stream
        return stream

    def close(self, stream: Stream) -> None:
        """The generator has ended."""
        self._open.pop(stream.source, None)

    # from the executor's thread

    def post(self, execution: Execution, position: int, output: Output) -> None:
        """Have the loop send a document. One wake-up serves all that came since the last one."""
        self._outgoing.append((execution, position, output))
        if not self._flush_due:
            self._flush_due = True
            try:
                self._loop.call_soon_threadsafe(self._flush)
            except RuntimeError:  # the loop is closed: the process is ending and the delivery goes to another replica
                return

    def _flush(self) -> None:
        self._flush_due = False
        while self._outgoing:
            self._send(*self._outgoing.popleft())

    # from the loop

    def send(self, execution: Execution, position: int, output: Output) -> None:
        self._send(execution, position, output)

    def submit(self, execution: Execution) -> None:
        self._submit(execution)

    def lend(self, executions: int) -> None:
        self._lend(executions)

    # readers

    def probe(self, stream: Stream) -> None:
        """Ask the gateway how far the reader is. It also learns whom to report to, from which attempt parts will come, and how many there
        are by now (in `pieces`)."""
        stream.unanswered = True
        envelope = stream.execution.envelope
        question = Envelope(
            envelope.request_id, envelope.flow, run=envelope.run, stream=True, final=False, source=stream.source,
            attempt=stream.execution.attempt, pieces=(stream.position,),
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
        """Each stream once in `PROBE_S`, not all at once: what a thousand of them ask would hold up everybody's requests."""
        while True:
            open_now = list(self._open)
            turns = max(1, min(TURNS, len(open_now)))
            for turn in range(turns):
                await asyncio.sleep(PROBE_S / turns)
                self._look_after_all(open_now[turn::turns])

    def _ask_all(self) -> None:
        """What was said to each other before may be lost."""
        for stream in self._open.values():
            self.probe(stream)

    def _look_after_all(self, sources: list[str]) -> None:
        if self._bus.connected:
            for source in sources:
                if (stream := self._open.get(source)) is not None:
                    self._look_after(stream)

    def _look_after(self, stream: Stream) -> None:
        if stream.unheard_since and monotonic() - stream.unheard_since > GIVE_UP_S:
            log.info("request %s: nobody is there to read its stream: dropped", stream.execution.envelope.request_id)
            stream.end(Dropped())
        elif (remaining_s := stream.execution.envelope.remaining_s()) is not None and remaining_s < 0:
            stream.hurry()
        elif stream.is_due():
            self.probe(stream)
