"""Promise P19: a job of any size waits behind online requests, and still advances beside them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest

from streamflow.broker import jobs
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import JSON
from streamflow.broker.settings import BrokerSettings
from tests.e2e.programs import Programs, broker_of, flow_file, step
from tests.waiting import eventually

from .sizes import LIMIT_S, size
from .traffic import Traffic, good, quantile, traffic

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S), pytest.mark.feature("QU-05")]
WINDOW_S = 12.0
ALLOWED = 1.2


@dataclass(frozen=True, slots=True)
class Seen:
    """p50 and p99 of online requests, in ms."""

    p50: float
    p99: float

    def __str__(self) -> str:
        return f"{self.p50:.1f}/{self.p99:.1f} ms"


async def online(clients: Traffic, rate: float) -> Seen:
    answers = await clients.at_rate(rate, WINDOW_S)
    assert len(good(answers)) == len(answers), {answer.status for answer in answers}
    return Seen(1e3 * quantile(answers, 0.5), 1e3 * quantile(answers, 0.99))


async def inputs(count: int) -> AsyncIterator[jobs.Input]:
    body = json.dumps({"data": [{"text": "bulk"}]}).encode()
    for _ in range(count):
        yield jobs.Input(JSON, body)


@dataclass
class Busy:
    """A flow with one sync executor of two replicas."""

    url: str
    broker_url: str
    name: str

    @classmethod
    def start(cls, programs: Programs, name: str, pause_s: float) -> Busy:
        program, addresses = programs.flow(flow_file(programs.folder, name, [step("work", replicas=2, pause_s=pause_s)]))
        return cls(f"http://{addresses['http']}/run", broker_of(program), name)

    @asynccontextmanager
    async def backlog(self, count: int) -> AsyncIterator[Callable[[], Awaitable[int]]]:
        """A job of `count` inputs that is running, and how many of them are done; cancelled in the end."""
        bus = await Bus.connect(BrokerSettings(broker_url=self.broker_url), "job")

        async def done() -> int:
            return (await jobs.progress(bus, job)).done

        async def has_begun() -> bool:
            return await done() > 200

        job = await jobs.submit(bus, jobs.Order(self.name, "/run"), inputs(count))
        await eventually(has_begun, 60, "the job is running")
        try:
            yield done
        finally:
            await jobs.cancel(bus, job)
            await bus.close()


@pytest.mark.parametrize(("pause_s", "rate"), [(0.005, 40.0), (0.02, 12.0)])
async def test_p19_online_requests_beside_a_backlog(programs: Programs, say: Callable[[str], None], pause_s: float, rate: float) -> None:
    """Against the same requests while the same job runs in another flow, which uses the machine as much and shares no worker.

    A sync endpoint is not interrupted, so a request may wait for the one of the job that is running: that much, and 20 %, is allowed.
    """
    count = size("P19_BACKLOG", 200_000, 1_000_000)
    mine, other = Busy.start(programs, "mine", pause_s), Busy.start(programs, "other", pause_s)
    async with traffic(mine.url) as clients:
        await clients.closed(16, 2.0)
        quiet = await online(clients, rate)
        async with other.backlog(count):
            apart = await online(clients, rate)
        async with mine.backlog(count) as done:
            before = await done()
            beside = await online(clients, rate)
            between = await done()
            busy = await clients.throughput(32, WINDOW_S)
            advanced = [(later - earlier) / WINDOW_S for earlier, later in pairwise((before, between, await done()))]
    say(
        f"P19 sync endpoint of {1e3 * pause_s:g} ms, 2 replicas, {rate:g} online requests/s (p50/p99): {quiet} alone, {apart} while a job "
        f"of {count} runs in another flow, {beside} while it runs in this one ({beside.p99 / apart.p99 - 1:+.0%}), where it advances by "
        f"{advanced[0]:.0f}/s; beside {busy:.0f}/s from 32 clients without a pause by {advanced[1]:.0f}/s"
    )
    assert beside.p99 <= ALLOWED * apart.p99 + 1e3 * pause_s
    assert advanced[0] > 0 and advanced[1] >= 0.05 * busy, "the job does not advance"
    assert advanced[1] <= 0.5 * busy, "the job takes what online requests wait for"
