"""Fair share: whatever tenants hand in, and whoever feeds their jobs, each has its share of the executors, by what these wrote down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from docarray.documents import TextDoc

from streamflow.broker.server import EmbeddedBroker
from streamflow.client import AsyncClient, Client
from streamflow.jobs import AsyncJob
from tests.e2e.programs import Programs
from tests.waiting import eventually

from .batches import Setting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.feature("QU-05")]
LARGE, SMALL, EACH = 2000, 100, 900
ALLOWED = 0.15


def documents(tenant: str, number: int) -> Iterator[TextDoc]:
    return (TextDoc(id=f"{tenant}-{at}", text="some text") for at in range(number))


async def submit(client: AsyncClient, tenant: str, number: int) -> AsyncJob:
    return await client.submit("/upper", documents(tenant, number), request_size=1, tenant=tenant)


def order(setting: Setting) -> list[str]:
    """Tenants in the order in which their requests ran for the first time."""
    return [name.partition("-")[0] for name in setting.executions()]  # a Counter keeps the order of first sight


def shares(ran: list[str]) -> dict[str, float]:
    """Of what ran while all had work: up to the last request of the first tenant that had none left."""
    until = min(len(ran) - ran[::-1].index(tenant) for tenant in set(ran))
    counted = Counter(ran[:until])
    return {tenant: count / until for tenant, count in sorted(counted.items())}


def shown(found: dict[str, float]) -> str:
    return ", ".join(f"{share:.1%}" for share in found.values())


async def test_a_small_job_behind_a_large_one(programs: Programs, own_broker: EmbeddedBroker, say: Callable[[str], None]) -> None:
    setting = Setting(programs, own_broker, pause_s=0.005)
    async with Client(setting.urls["nats"], asyncio=True) as client:
        large = await submit(client, "large", LARGE)
        await eventually(lambda: len(order(setting)) > 100, 60, "the large job runs")
        small = await submit(client, "small", SMALL)
        handed_in = len(order(setting))
        await small.wait(timeout=60)
        assert (await large.status()).done < LARGE
        await large.wait(timeout=60)
    ran = order(setting)
    first, last = ran.index("small"), len(ran) - 1 - ran[::-1].index("small")
    say(
        f"{SMALL} requests handed in when {handed_in} of {LARGE} had run: the first one ran {first - handed_in} requests later, the last "
        f"one as number {last + 1} of {len(ran)}, {last + 1 - first - SMALL} of the large job in between"
    )
    assert last - first <= 2 * SMALL * (1 + ALLOWED)
    assert last < LARGE // 2


async def test_equal_shares_also_when_the_feeder_is_killed(
    programs: Programs, own_broker: EmbeddedBroker, say: Callable[[str], None]
) -> None:
    setting = Setting(programs, own_broker, pause_s=0.005)
    tenants = ("a", "b", "c")
    async with Client(setting.urls["nats"], asyncio=True) as client:
        jobs = [await submit(client, tenant, EACH) for tenant in tenants]
        await eventually(lambda: len(order(setting)) > EACH, 60, "a third ran")
        before = len(order(setting))
        setting.kill_workers()
        for job in jobs:
            assert (await job.wait(timeout=120)).failed == 0
    ran = order(setting)
    whole, behind = shares(ran), shares(ran[before:])
    say(
        f"3 tenants with {EACH} requests each, all workers killed after {before}, the one that fed among them: shares while all had work "
        f"{shown(whole)}, of those behind the kill {shown(behind)}"
    )
    for found in (whole, behind):
        assert all(abs(share - 1 / 3) < ALLOWED / 3 for share in found.values()), found
