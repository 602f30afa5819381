"""The stored outcomes of a job, read in the order in which they were recorded, from any place on, while it runs or later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from . import blobs, bucket, job_gaps, jobs, reader, subjects
from .bus import Bus
from .envelope import EMPTY, Envelope, decode
from .errors import Status, StreamflowError, Unavailable
from .jobs import Job
from .lifecycle import Stop
from .reader import Stored

LOOK_S = 1.0  # how often a reader that waits asks whether the job was cancelled


@dataclass(frozen=True, slots=True)
class Result:
    """One outcome. `number`: of the input, from 0 (of a replayed journal its sequence there). `cursor`: what to start from to go on."""

    number: int
    cursor: int
    envelope: Envelope


async def results(bus: Bus, job: Job, start: int = 0, *, follow: bool = True, stop: Stop | None = None) -> AsyncGenerator[Result, None]:
    """Outcomes of `job` recorded behind cursor `start`, in that order, each once, large bodies in place.

    With `follow` until there is one for every input that is not gone, or the job is cancelled; without, those that are there. Raises
    `NotFound`, `Unavailable`, the latter also when `stop` is set: whoever reads goes on elsewhere.
    """
    stream, mine = subjects.results_stream(job.flow), subjects.result(job.flow, f"{job.id}.*")
    left = job.total - (await reader.count(bus, stream, mine) - await reader.count(bus, stream, mine, after=start) if start else 0)
    async with aclosing(_Waiting(bus, job, reader.read(bus, stream, mine, after=start, follow=follow), stop)) as waiting:
        while left > 0 and (message := await waiting.next(left)) is not None:
            left -= 1
            yield Result(int(message.subject.rpartition(".")[2]), message.sequence, await _opened(bus, message))


class _Waiting:
    """The next outcome, or a reason to wait no longer."""

    def __init__(self, bus: Bus, job: Job, messages: AsyncGenerator[Stored, None], stop: Stop | None) -> None:
        self._bus = bus
        self._job = job
        self._messages = messages
        self._upcoming: asyncio.Future[Stored | None] | None = None
        self._stopping = asyncio.ensure_future(stop.wait()) if stop is not None else None

    async def next(self, left: int) -> Stored | None:
        """None at the end, `left` outcomes being still expected. Raises `Unavailable` when this process stops."""
        while True:
            if self._upcoming is None:
                self._upcoming = asyncio.ensure_future(anext(self._messages, None))
            awaited: set[asyncio.Future[Any]] = {self._upcoming} if self._stopping is None else {self._upcoming, self._stopping}
            done, _ = await asyncio.wait(awaited, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            if self._upcoming in done:
                upcoming, self._upcoming = self._upcoming, None
                return upcoming.result()
            if done:
                raise Unavailable("the gateway is shutting down: go on from the cursor of the last result")
            if await self._is_over(left):
                return None

    async def _is_over(self, left: int) -> bool:
        """Whether the job was cancelled, or the inputs of all `left` outcomes are gone."""
        try:
            if await bucket.get(self._bus, self._job.flow, f"cancelled.{self._job.id}") is not None:
                return True
            is_fed = await jobs.consumer(self._bus, self._job) is None
            return is_fed and await job_gaps.gone(self._bus, self._job) >= left
        except Unavailable:
            return False  # the reader waits for the broker, and so does this

    async def aclose(self) -> None:
        open_tasks = [task for task in (self._upcoming, self._stopping) if task is not None]
        for task in open_tasks:
            task.cancel()
        await asyncio.gather(*open_tasks, return_exceptions=True)
        await self._messages.aclose()


async def _opened(bus: Bus, message: Stored) -> Envelope:
    envelope = decode(message.payload)
    if envelope.claim is None:
        return envelope
    try:
        return await blobs.check_out(bus, envelope)
    except StreamflowError as error:
        return envelope._replace(status=Status.of(error), claim=None, body=b"", content_type=EMPTY)


async def newest(bus: Bus, flow: str, limit: int, is_wanted: Callable[[Job], bool] = lambda _: True) -> list[jobs.Progress]:
    """How far the `limit` newest jobs of `flow` that are wanted are, newest first."""
    found: list[Job] = []
    ids = await jobs.ids(bus, flow)
    for at in range(0, len(ids), jobs.STORING):
        records = await asyncio.gather(*(jobs.find(bus, flow, job_id) for job_id in ids[at : at + jobs.STORING]))
        found += [job for job in records if job is not None and is_wanted(job)]
        found = sorted(found, key=lambda job: job.created, reverse=True)[:limit]
    return list(await asyncio.gather(*(jobs.progress(bus, job) for job in found)))
