"""The parts of one stream on their way to one reader: in order, each once, from one run of the generator at a time.

Parts come as they are ready, from any replica of the flow's last executor, and again when a worker died. The worker that numbers them
(`Envelope.source`) keeps within a window beyond what the reader has taken, so what waits here is bounded.
docs/decisions/0009-streaming.md has the rules.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

from streamflow.broker.credit import GONE, MAX_EARLY, REPORT_PARTS, SUPERSEDED, Report
from streamflow.broker.envelope import EMPTY, Envelope
from streamflow.broker.errors import Code, Status

log = logging.getLogger(__name__)


class Sequence:
    """`arrive` and `probed` are entered for every message of the stream, `read` by the one who forwards the parts. One loop."""

    def __init__(self, run: str, report: Callable[[str, bytes], None], window_bytes: Callable[[], int]) -> None:
        """`run` of the request; `report(source, payload)` sends to the worker behind a source; `window_bytes` that it may be ahead now."""
        self._report = report
        self._window_bytes = window_bytes
        self._run = run
        self._source = ""
        self._rank = (False, 0)  # of the source: whether of the current run, attempt
        self._early: dict[int, Envelope] = {}
        self._ready: asyncio.Queue[Envelope] = asyncio.Queue()
        self._next = 0  # position to be released
        self._taken = 0
        self._reported = 0
        self._sent = 0  # parts there are, as the source said last
        self.ended = False
        self.dropped = 0  # parts of another run, or that came twice

    def restart(self, run: str) -> None:
        """The request was published again: what the new run sends wins over the old one."""
        self._run = run
        self._rank = (False, self._rank[1])
        self._sent = 0

    def arrive(self, part: Envelope) -> bool:
        """Take in one answer. True when it was the last one that this stream needs."""
        if self.ended or (part.source and not self._adopt(part)):
            self.dropped += 1
        elif part.position < 0:  # all documents at once, or a failure outside of any stream
            self._release(part._replace(final=True))
        elif part.position < self._next and part.final:
            self._release(_ended_early(part, self._next))
        elif part.position < self._next or part.position in self._early:
            self.dropped += 1
        else:
            self._early[part.position] = part
            self._release_early()
        return self.ended

    def _adopt(self, part: Envelope) -> bool:
        """Whether `part` is of the run to forward. A later attempt takes over at the first part that is not here yet."""
        if part.source == self._source:
            return True
        rank = self._rank_of(part)
        if rank <= self._rank:
            return False
        if self._source:
            log.info("request %s: attempt %d goes on with part %d", part.request_id, part.attempt, self._next)
        self._source, self._rank = part.source, rank
        self._early.clear()
        self._send_report()
        return True

    def _rank_of(self, part: Envelope) -> tuple[bool, int]:
        return part.run == self._run, part.attempt

    def _release_early(self) -> None:
        while not self.ended and self._next in self._early:
            self._release(self._early.pop(self._next))
            self._next += 1
        if len(self._early) > MAX_EARLY:
            text = f"part {self._next} of the stream is missing while {len(self._early)} later ones are here"
            last = next(iter(self._early.values()))
            self._release(last._replace(status=Status(Code.INTERNAL, text), body=b"", final=True))

    def _release(self, part: Envelope) -> None:
        self._ready.put_nowait(part)
        if part.final:
            self.ended = True
            self._early.clear()

    def probed(self, probe: Envelope) -> bytes:
        """What a worker hears that asks how far the reader is: a report, or that it may stop."""
        if self.ended:
            return GONE
        if not self._adopt(probe):
            # An earlier delivery of the same message; another message for the same request (published again) is one too many.
            is_same = (probe.run == self._run) == self._rank[0]
            return SUPERSEDED if is_same and self._rank_of(probe) < self._rank else GONE
        self._sent = max(probe.pieces, default=0)
        self._reported = self._taken - REPORT_PARTS + 1  # it waits: the next part that is taken is told at once
        return self._progress()

    @property
    def gap(self) -> int | None:
        """The first part that was sent and is not here, None when there is none."""
        return self._next if self._sent > self._next and not self.ended else None

    async def read(self) -> AsyncGenerator[Envelope, None]:
        """The documents of the stream, one each, numbered from 0; then an empty last part, which holds the status."""
        number = 0
        while True:
            part = await self._ready.get()
            for document in _documents(part):
                yield document._replace(position=number, final=False, pieces=())
                number += 1
            if part.final:
                yield part._replace(body=b"", content_type=EMPTY, position=number, pieces=())
                return
            self._took(part)

    def _took(self, part: Envelope) -> None:
        """The reader came back for more, so what it had is on its way to the client."""
        self._taken = max(self._taken, part.position + 1)
        if self._taken - self._reported >= REPORT_PARTS and not self.ended:
            self._send_report()

    def repeat(self) -> None:
        """Say again how far the reader is: the last report may be lost."""
        if self._source and not self.ended:
            self._send_report()

    def _send_report(self) -> None:
        self._reported = self._taken
        self._report(self._source, self._progress())

    def _progress(self) -> bytes:
        return Report(self._taken, self._next, self._window_bytes()).encode()


def _ended_early(last: Envelope, released: int) -> Envelope:
    """The end of a later attempt that came before the end of what an earlier one sent: its failure, or that it was another stream."""
    if last.status.code is not Code.OK:
        return last
    text = (
        f"attempt {last.attempt} ended after {last.position} documents, {released} had been forwarded: the generator is not deterministic"
    )
    return last._replace(status=Status(Code.INTERNAL, text))


def _documents(part: Envelope) -> list[Envelope]:
    """`part` as one envelope for each document in it."""
    if len(part.pieces) < 2:
        return [part] if part.body else []
    body = memoryview(part.body)
    starts = [sum(part.pieces[:at]) for at in range(len(part.pieces))]
    return [part._replace(body=body[start : start + size]) for start, size in zip(starts, part.pieces, strict=True)]
