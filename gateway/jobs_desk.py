"""What a gateway offers about the jobs of its flow, whatever protocol it is asked by."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from dataclasses import replace as with_changes
from enum import StrEnum

from streamflow.broker import job_results, jobs, replay
from streamflow.broker.bus import Bus
from streamflow.broker.errors import InvalidInput, NotFound, PermissionDenied
from streamflow.broker.job_results import Result
from streamflow.broker.jobs import Input, Job, Order, Progress
from streamflow.broker.lifecycle import Stop
from streamflow.broker.replay import Range, Replay

from .principals import ANYONE, CURRENT, may_see, tenant_for

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


class Action(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


_ACTS: dict[Action, Callable[[Bus, Job], Awaitable[None]]] = {
    Action.PAUSE: jobs.pause,
    Action.RESUME: jobs.resume,
    Action.CANCEL: jobs.cancel,
}


def action_of(name: str) -> Action:
    """Raises `InvalidInput` for what is none."""
    try:
        return Action(name)
    except ValueError:
        raise InvalidInput(f"action {name[:80]!r}: use one of {', '.join(Action)}") from None


class JobDesk:
    """Jobs of one flow. `stop` ends readers of results that wait, so that they go on at another gateway.

    All methods raise what `broker/jobs.py` raises: `NotFound` for an unknown job, `Unavailable`, ...
    """

    def __init__(self, bus: Bus, flow: str, stop: Stop) -> None:
        self._bus = bus
        self._stop = stop
        self.flow = flow

    async def submit(self, order: Order, inputs: AsyncIterable[Input]) -> Progress:
        """Returns when everything is stored."""
        if order.flow != self.flow:
            raise NotFound(f"this gateway serves flow {self.flow!r}, not {order.flow!r}")
        order = with_changes(order, tenant=tenant_for(order.tenant))
        return await jobs.progress(self._bus, await jobs.submit(self._bus, order, inputs))

    async def job(self, job_id: str) -> Job:
        """Another tenant's is as unknown as one that never was."""
        job = await jobs.get(self._bus, self.flow, job_id)
        if not may_see(job.tenant):
            raise jobs.unknown(self._bus, self.flow, job_id)
        return job

    async def status(self, job_id: str) -> Progress:
        return await jobs.progress(self._bus, await self.job(job_id))

    async def newest(self, limit: int) -> list[Progress]:
        """Of those that the caller may see."""
        return await job_results.newest(self._bus, self.flow, min(limit or DEFAULT_LIMIT, MAX_LIMIT), lambda job: may_see(job.tenant))

    async def control(self, job_id: str, action: Action) -> Progress:
        job = await self.job(job_id)
        await _ACTS[action](self._bus, job)
        return await jobs.progress(self._bus, job)

    def results(self, job: Job, start: int, *, follow: bool) -> AsyncGenerator[Result, None]:
        """See `job_results.results`; raises `Unavailable` when this gateway stops."""
        return job_results.results(self._bus, job, start, follow=follow, stop=self._stop)

    async def replay(self, job_id: str, failed_only: bool, within: Range, rate: float, key: str, tenant: str) -> tuple[Progress, Replay]:
        """Run stored inputs again: of a job, or with "" those in the flow's journal.

        The journal has everybody's requests: `PermissionDenied` where callers are told apart.
        """
        if job_id:
            await self.job(job_id)
        elif CURRENT.get() is not ANYONE:
            raise PermissionDenied("the journal holds the requests of all callers: replay it over nats://, or name a job")
        made = await replay.replay(
            self._bus, self.flow, job_id=job_id, failed_only=failed_only, within=within, rate=rate, key=key, tenant=tenant_for(tenant)
        )
        return await jobs.progress(self._bus, made.job), made
