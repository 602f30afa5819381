"""Jobs of several tenants: none of them can keep the others from an executor. Read from the order in which the executor ran them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow.broker import jobs
from streamflow.broker.envelope import JSON
from streamflow.broker.flow import Graph, Node
from streamflow.broker.settings import BrokerSettings
from streamflow.workers.executor import Executor, requests
from tests.running import Running, running
from tests.waiting import eventually

pytestmark = pytest.mark.feature("QU-05")


class Ledger(Executor):
    """Writes down whose requests it runs, one at a time."""

    runs: list[str] = []
    pause_s = 0.005

    @requests
    def work(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        Ledger.runs.append(docs[0].text or "")
        time.sleep(Ledger.pause_s)


class Quick(Executor):
    @requests
    async def work(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        return None


@pytest.fixture(autouse=True)
def fresh() -> None:
    Ledger.runs = []


async def inputs(whose: str, count: int) -> AsyncIterator[jobs.Input]:
    for _ in range(count):
        yield jobs.Input(JSON, json.dumps({"data": [{"text": whose}]}).encode())


async def submit(flow: Running, whose: str, count: int, **options: Any) -> jobs.Job:
    return await jobs.submit(flow.bus, jobs.Order(flow.graph.flow, **options), inputs(whose, count))


def between(whose: str) -> Counter[str]:
    """What ran from the first request of `whose` to the last one."""
    return Counter(Ledger.runs[Ledger.runs.index(whose) : last_of(whose) + 1])


def last_of(whose: str) -> int:
    return len(Ledger.runs) - 1 - Ledger.runs[::-1].index(whose)


async def has_run(whose: str, count: int) -> None:
    await eventually(lambda: Ledger.runs.count(whose) >= count, 30, f"{count} requests of {whose} ran")


@pytest.mark.parametrize("pause_s", [0.002, 0.06])  # one request in each look of the feeder, and less than one
async def test_a_small_job_beside_a_large_one(settings: BrokerSettings, flow_name: str, pause_s: float) -> None:
    Ledger.pause_s, small = pause_s, 20
    async with running(settings, Graph(flow_name, (Node("a"),)), {"a": Ledger}) as flow:
        large = await submit(flow, "large", 2000)
        await has_run("large", 10)
        await submit(flow, "small", small)
        await has_run("small", small)
        found = between("small")
        assert found["large"] <= 1.2 * small
        await jobs.cancel(flow.bus, large)


async def test_a_tenant_with_many_jobs_has_the_share_of_one(settings: BrokerSettings, flow_name: str) -> None:
    Ledger.pause_s = 0.003
    async with running(settings, Graph(flow_name, (Node("a"),)), {"a": Ledger}) as flow:
        many = [await submit(flow, "many", 300, tenant="many") for _ in range(5)]
        await has_run("many", 10)
        await submit(flow, "one", 100, tenant="one")
        await has_run("one", 100)
        assert between("one")["many"] <= 115
        for job in many:
            await jobs.cancel(flow.bus, job)


async def test_three_tenants_with_equal_work_get_equal_shares(settings: BrokerSettings, flow_name: str) -> None:
    Ledger.pause_s, count, names = 0.002, 200, ("a", "b", "c")
    async with running(settings, Graph(flow_name, (Node("work"),)), {}) as flow:
        for name in names:
            await submit(flow, name, count, tenant=name)
        flow.start_worker("work", Ledger)
        for name in names:
            await has_run(name, count)
        shares = Counter(Ledger.runs[: min(last_of(name) for name in names)])
        assert all(abs(shares[name] / shares.total() - 1 / 3) < 0.15 / 3 for name in names), shares


async def test_a_slow_executor_behind_a_quick_one_is_shared_too(settings: BrokerSettings, flow_name: str) -> None:
    """What the quick one lets through would wait before the slow one, and whoever comes later behind it."""
    Ledger.pause_s = 0.005
    graph = Graph(flow_name, (Node("quick"), Node("slow", needs=("quick",))))
    async with running(settings, graph, {"quick": Quick, "slow": Ledger}) as flow:
        large = await submit(flow, "large", 1500, tenant="large")
        await has_run("large", 10)
        await submit(flow, "small", 50, tenant="small")
        behind = len(Ledger.runs)
        await has_run("small", 50)
        assert Ledger.runs.index("small") - behind < 100
        assert between("small")["large"] <= 60
        await jobs.cancel(flow.bus, large)


async def test_who_needs_another_executor_does_not_wait(settings: BrokerSettings, flow_name: str) -> None:
    Ledger.pause_s = 0.005
    graph = Graph(flow_name, (Node("quick"), Node("slow", needs=("quick",))))
    async with running(settings, graph, {"quick": Quick, "slow": Ledger}) as flow:
        large = await submit(flow, "large", 2000, tenant="large")
        await has_run("large", 10)
        quick = await submit(flow, "quick", 1000, tenant="quick", target_executor="^quick$")

        async def is_done() -> bool:
            return (await jobs.progress(flow.bus, quick)).state is jobs.State.DONE

        await eventually(is_done, 15, "the job that needs the quick one only is done")
        assert len(Ledger.runs) < 1000
        await jobs.cancel(flow.bus, large)
