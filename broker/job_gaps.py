"""Why a job may not advance: inputs that are gone, or no room for its results. Asked for when its state is, and only where it may be so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from . import reader, store_room, subjects
from .bus import Bus
from .errors import NotFound
from .job_records import Job


async def gone(bus: Bus, job: Job) -> int:
    """How many inputs of `job`, of which nothing is left to feed, have no outcome and are not stored any more.

    They have expired, were purged, or lie in a stream that was made anew; of a replay of failures, they were put back meanwhile. One that
    expires while it runs counts until it has its outcome. As long as all inputs are stored this costs one or two calls, then a look at the
    name of each.
    """
    if await _stored(bus, job) >= job.total:
        return 0
    names = {name async for name in _names_of_inputs(bus, job)}
    names |= {name async for name in _names_of_outcomes(bus, job)}
    return max(0, job.total - len(names))


async def _stored(bus: Bus, job: Job) -> int:
    places = (job.after, job.until) if job.until else (job.after,)
    try:
        behind = await asyncio.gather(*(reader.count(bus, job.stream, job.filter, after=after) for after in places))
    except NotFound:
        return 0
    return behind[0] - sum(behind[1:])


async def _names_of_inputs(bus: Bus, job: Job) -> AsyncIterator[str]:
    try:
        async for message in reader.read(bus, job.stream, job.filter, after=job.after, headers_only=True):
            if 0 < job.until < message.sequence:
                return
            yield job.name_of(message.subject, message.sequence)
    except NotFound:
        return


async def _names_of_outcomes(bus: Bus, job: Job) -> AsyncIterator[str]:
    mine = subjects.result(job.flow, f"{job.id}.*")
    async for message in reader.read(bus, subjects.results_stream(job.flow), mine, headers_only=True):
        yield message.subject.rpartition(".")[2]


async def why_waiting(bus: Bus, flow: str) -> str:
    """What keeps outcomes of jobs from being recorded, in words; "" = nothing. Workers hold what finds no room, and try again."""
    info = await bus.api(f"STREAM.INFO.{subjects.results_stream(flow)}")
    if not store_room.is_full(info):
        return ""
    return (
        f"there is no room for results: {store_room.usage(info)} are in use (STREAMFLOW_MAX_JOB_BYTES), each for "
        f"{bus.settings.keep_s / 86400:g} days; it goes on by itself when there is room"
    )
