"""Replay: stored inputs once more, as a job of their own. Nothing is copied; the new job reads where the old inputs are."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from . import bucket, jobs, reader, subjects
from .bus import Bus
from .errors import InvalidInput, NotFound
from .job_records import EVERYTHING as EVERYTHING
from .job_records import Job, Source
from .job_records import Range as Range


@dataclass(frozen=True, slots=True)
class Replay:
    """An accepted replay. `gone`: inputs that were stored once and have expired since."""

    job: Job
    gone: int = 0


async def replay(
    bus: Bus,
    flow: str,
    *,
    job_id: str = "",
    failed_only: bool = False,
    within: Range = EVERYTHING,
    rate: float = 0.0,
    to_flow: str = "",
    key: str = "",
    tenant: str = "",
) -> Replay:
    """Run stored inputs of `flow` again: of job `job_id`, or without one those in the flow's journal.

    Outcomes are stored under the new job's id, the originals stay. `to_flow` runs them in another flow on the same broker. A `key` makes
    it the same replay whenever it is asked for again. `tenant`: default that of the job. Raises `NotFound` (no such job or journal,
    nothing left), `InvalidInput`.
    """
    run_in = subjects.token(to_flow or flow, "flow")
    rate = jobs.checked_rate(rate)
    await bucket.load_graph(bus, run_in)
    asked = f"replay of {flow} {job_id} {'failures' if failed_only else ''} {within} at {rate:g}/s"
    new_id = jobs.new_id(run_in, key, jobs.checked_tenant(tenant))
    known = await jobs.find(bus, run_in, new_id) if key else None
    if known is not None:
        return Replay(await jobs.accept(bus, replace(known, fingerprint=asked), key))
    source = await _source(bus, subjects.token(flow, "flow"), job_id, failed_only)
    after, until = await _bounds(bus, source, within)
    total = await _count(bus, source, after, until)
    whole = within == EVERYTHING and source.source is Source.INPUTS
    gone = source.total - total if whole else 0
    if not total:
        raise NotFound(_nothing(bus, source, within))
    new = Job(
        new_id, run_in, source.endpoint, total, time.time(), asked, source.parameters,
        source.target_executor, rate, source.source, source.origin_flow, source.origin, source.failures_of, source.failures_flow,
        after, until, tenant or source.tenant,
    )  # fmt: skip
    return Replay(await jobs.accept(bus, new, key), gone)


async def _source(bus: Bus, flow: str, job_id: str, failed_only: bool) -> Job:
    """A record that tells where the inputs are."""
    if job_id:
        job = await jobs.get(bus, flow, job_id)
        if not failed_only:
            return job
        return replace(job, source=Source.FAILED, failures_of=job_id, failures_flow=flow, after=0, until=0)
    if failed_only:
        raise InvalidInput("only a job's failures can be replayed: name the job")
    try:
        await bus.api(f"STREAM.INFO.{subjects.journal_stream(flow)}")
    except NotFound as error:
        raise NotFound(f"flow {flow!r} keeps no journal: name a job, or set `journal: true` in the flow") from error
    return Job("journal", flow, source=Source.JOURNAL, origin_flow=flow)


async def _bounds(bus: Bus, source: Job, within: Range) -> tuple[int, int]:
    """Sequences (after, until] of the stream that `source` reads; until 0 = what is there now."""
    if (within.since or within.until) and (within.from_seq or within.to_seq):
        raise InvalidInput("a range is given by time or by sequence, not by both")
    after, until = max(within.from_seq - 1, source.after), within.to_seq or source.until
    if within.since:
        after = max(after, await _first_since(bus, source, within.since) - 1)
    if within.until:
        until = await _first_since(bus, source, within.until + 1e-6) - 1
    if not until:
        until = int((await bus.api(f"STREAM.INFO.{source.stream}"))["state"]["last_seq"])
    return after, until


async def _first_since(bus: Bus, source: Job, since: float) -> int:
    """Sequence of the first message of `source` stored from `since` on, or the one that the stream gives next."""
    async for message in reader.read(bus, source.stream, source.filter, since=since):
        return message.sequence
    return int((await bus.api(f"STREAM.INFO.{source.stream}"))["state"]["last_seq"]) + 1


async def _count(bus: Bus, source: Job, after: int, until: int) -> int:
    if until <= after:
        return 0
    from_after = await reader.count(bus, source.stream, source.filter, after=after)
    return from_after - await reader.count(bus, source.stream, source.filter, after=until)


def _nothing(bus: Bus, source: Job, within: Range) -> str:
    what = (
        f"job {source.origin or source.failures_of!r}"
        if source.source is not Source.JOURNAL
        else f"the journal of flow {source.origin_flow!r}"
    )
    if source.source is Source.FAILED:
        return f"job {source.failures_of!r} has no failures to replay"
    if within != EVERYTHING:
        return f"{what} has nothing in that range (stored inputs are kept for {bus.settings.keep_s / 86400:g} days)"
    return f"{what}: all of its inputs are gone (they are kept for {bus.settings.keep_s / 86400:g} days)"
