"""Jobs of callers that have limits (docs/decisions/0025-slow-readers-and-overload.md, 0029-fair-share.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from streamflow.broker import jobs
from streamflow.broker.bus import Bus
from streamflow.broker.errors import TooLarge
from streamflow.broker.jobs import Input, Order, Progress
from streamflow.broker.lifecycle import Stop
from streamflow.broker.replay import Range, Replay

from .jobs_desk import JobDesk
from .principals import AGAIN, Principal
from .quotas import OverLimit, Quotas

JOBS_RETRY_S = 5


class LimitedJobDesk(JobDesk):
    """A desk that holds each caller to its limits.

    Handing in a job is one request: of the size of all its inputs together, and in flight until all is stored. It then runs no faster than
    its caller may send, and its tenant has no more unfinished jobs than the caller may have. All methods raise `OverLimit` too. Gateways
    without callers that have limits use the plain desk.
    """

    def __init__(self, quotas: Quotas, bus: Bus, flow: str, stop: Stop) -> None:
        super().__init__(bus, flow, stop)
        self._quotas = quotas
        self._coming: Counter[str] = Counter()  # jobs that are being handed in, by tenant

    async def submit(self, order: Order, inputs: AsyncIterable[Input]) -> Progress:
        with self._one_request() as caller:
            async with self._one_job(caller, order.key):
                return await super().submit(replace(order, rate=_paced(order.rate, caller)), _bounded(inputs, caller))

    async def replay(self, job_id: str, failed_only: bool, within: Range, rate: float, key: str, tenant: str) -> tuple[Progress, Replay]:
        with self._one_request() as caller:
            async with self._one_job(caller, key):
                return await super().replay(job_id, failed_only, within, _paced(rate, caller), key, tenant)

    @asynccontextmanager
    async def _one_job(self, caller: Principal, key: str) -> AsyncIterator[None]:
        """Those that other gateways are taking at this moment are not counted. One that was accepted under its `key` is no further one."""
        tenant, most = caller.share, caller.limits.jobs
        if most and not (key and await jobs.find(self._bus, self.flow, jobs.new_id(self.flow, key, tenant))):
            stored = sum(job.tenant == tenant for job in await jobs.active(self._bus, self.flow))
            unfinished = stored + self._coming[tenant]
            if unfinished >= most:
                raise OverLimit(f"{tenant!r} has {unfinished} unfinished jobs, {caller.name!r} may have {most}", JOBS_RETRY_S)
        self._coming[tenant] += 1
        try:
            yield
        finally:
            self._coming[tenant] -= 1
            if not self._coming[tenant]:
                del self._coming[tenant]

    @contextmanager
    def _one_request(self) -> Iterator[Principal]:
        caller = AGAIN.get()()
        use = self._quotas.take(caller, 0)
        try:
            yield caller
        finally:
            self._quotas.release(use)


def _paced(rate: float, caller: Principal) -> float:
    """Inputs per second: what is asked for (0 = all that workers can), and not more than `caller` may send."""
    most = caller.limits.requests_per_s
    return min(rate or most, most) if most else rate


async def _bounded(inputs: AsyncIterable[Input], caller: Principal) -> AsyncIterator[Input]:
    """`inputs`, ending in `TooLarge` as soon as they are more than one request of `caller` may hold."""
    most, size = caller.limits.max_request_bytes, 0
    async for given in inputs:
        size += len(given.body)
        if most and size > most:
            raise TooLarge(f"the inputs of the job are larger than the {most} bytes that {caller.name!r} may send")
        yield given
