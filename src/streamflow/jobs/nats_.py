"""Jobs straight over the broker: no gateway is needed, neither to hand one in nor to read its results."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from docarray.base_doc.doc import BaseDocWithoutId

from streamflow.broker import job_results, jobs
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import COLUMNS
from streamflow.broker.jobs import Input, Job, Order
from streamflow.broker.replay import replay
from streamflow.client.envelopes import parts_of

from .backend import Again
from .status import JobResponse, JobStatus

_ACTS: dict[str, Callable[[Bus, Job], Awaitable[None]]] = {"pause": jobs.pause, "resume": jobs.resume, "cancel": jobs.cancel}


class NatsJobs:
    """See `backend.Backend`. `connect` gives the connection for a flow."""

    content_type = COLUMNS

    def __init__(self, connect: Callable[[str], Awaitable[Bus]]) -> None:
        self._connect = connect

    async def submit(self, order: Order, inputs: AsyncIterator[Input]) -> JobStatus:
        bus = await self._connect(order.flow)
        return JobStatus.of(await jobs.progress(bus, await jobs.submit(bus, order, inputs)))

    async def replay(self, again: Again) -> JobStatus:
        bus = await self._connect(again.flow)
        made = await replay(
            bus, again.flow, job_id=again.job, failed_only=again.failed_only, within=again.within, rate=again.rate,
            to_flow=again.to_flow, key=again.key, tenant=again.tenant,
        )  # fmt: skip
        return JobStatus.of(await jobs.progress(bus, made.job), made.gone)

    async def status(self, flow: str, job_id: str) -> JobStatus:
        bus = await self._connect(flow)
        return JobStatus.of(await jobs.progress(bus, await jobs.get(bus, flow, job_id)))

    async def control(self, flow: str, job_id: str, action: str) -> JobStatus:
        bus = await self._connect(flow)
        job = await jobs.get(bus, flow, job_id)
        await _ACTS[action](bus, job)
        return JobStatus.of(await jobs.progress(bus, job))

    async def newest(self, flow: str, limit: int) -> list[JobStatus]:
        return [JobStatus.of(progress) for progress in await job_results.newest(await self._connect(flow), flow, limit)]

    async def results(
        self, flow: str, job_id: str, start: int, follow: bool, doc_type: type[BaseDocWithoutId]
    ) -> AsyncGenerator[JobResponse, None]:
        bus = await self._connect(flow)
        job = await jobs.get(bus, flow, job_id)
        async with aclosing(job_results.results(bus, job, start, follow=follow)) as found:
            async for result in found:
                yield JobResponse(parts_of(result.envelope), doc_type, number=result.number, cursor=result.cursor)
