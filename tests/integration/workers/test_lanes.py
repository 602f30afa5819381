"""Online requests go before a job's, and neither starves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow.broker import jobs, subjects
from streamflow.broker.envelope import JSON
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call
from streamflow.workers.executor import Executor, requests
from tests.running import Running, running
from tests.waiting import eventually

pytestmark = pytest.mark.feature("QU-05")


class Slow(Executor):
    """Sync, so one at a time, and slow, so that the worker holds no online request beyond the one that runs."""

    runs: Counter[str] = Counter()

    @requests
    def work(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        Slow.runs[docs[0].text or ""] += 1
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def fresh() -> None:
    Slow.runs.clear()
    Gated.begun.clear()
    Gated.may_end = threading.Semaphore(0)


async def _inputs(count: int) -> AsyncIterator[jobs.Input]:
    for _ in range(count):
        yield jobs.Input(JSON, b'{"data": [{"text": "bulk"}]}')


async def online(flow: Running, clients: int, seconds: float) -> None:
    """Clients that send the next request when they have their answer."""
    end = time.monotonic() + seconds
    body = json.dumps({"data": [{"text": "online"}]}).encode()

    async def client() -> None:
        while time.monotonic() < end:
            assert (await flow.dispatcher.send(Call("/", body, JSON))).status.code is Code.OK

    await asyncio.gather(*(client() for _ in range(clients)))


async def test_a_job_gets_its_small_share_while_online_requests_wait(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("slow"),)), {"slow": Slow}) as flow:
        await jobs.submit(flow.bus, jobs.Order(flow_name), _inputs(400))
        await eventually(lambda: Slow.runs["bulk"] > 5)
        Slow.runs.clear()
        await online(flow, 8, 1.5)
        ran, bulk = Slow.runs["online"], Slow.runs["bulk"]
        assert ran >= 5 * bulk, f"{ran} online requests and {bulk} of the job ran"
        assert bulk >= 2, "the job starves"


async def test_a_job_goes_on_when_the_last_online_request_is_done(settings: BrokerSettings, flow_name: str) -> None:
    """Two workers, each of which may wait for a request that the other one took."""
    async with running(settings, Graph(flow_name, (Node("slow"),)), {"slow": Slow}) as flow:
        flow.start_worker("slow", Slow)
        await flow.ready_with({"slow": 2})
        for number in range(1, 4):
            await jobs.submit(flow.bus, jobs.Order(flow_name), _inputs(60))
            await online(flow, 6, 0.3)
            await eventually(partial(has_run, 60 * number), 5.0, "the end of the job")


class Gated(Executor):
    """Each of its runs waits until it may end."""

    begun: list[str] = []
    may_end = threading.Semaphore(0)

    @requests
    def work(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        Gated.begun.append(docs[0].text or "")
        Gated.may_end.acquire()


async def test_the_next_of_a_job_begins_before_the_broker_has_the_outcome_of_the_last(
    own_broker: EmbeddedBroker, settings: BrokerSettings, flow_name: str
) -> None:
    settings = settings.model_copy(update={"broker_url": own_broker.url})
    async with running(settings, Graph(flow_name, (Node("gated"),)), {"gated": Gated}) as flow:
        await jobs.submit(flow.bus, jobs.Order(flow_name), _inputs(10))
        await eventually(partial(_are_held, flow, 2), what="one runs and one waits in the worker")
        os.kill(own_broker.pid, signal.SIGSTOP)
        try:
            began = len(Gated.begun)
            Gated.may_end.release()
            await eventually(lambda: len(Gated.begun) == began + 1, 2.0, "the next one begins")
        finally:
            os.kill(own_broker.pid, signal.SIGCONT)
            Gated.may_end.release(10)
        await eventually(lambda: len(Gated.begun) == 10, what="the end of the job")


async def test_an_online_request_goes_before_those_of_a_job_that_the_worker_has_at_hand(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("gated"),)), {"gated": Gated}) as flow:
        await jobs.submit(flow.bus, jobs.Order(flow_name), _inputs(10))
        await eventually(partial(_are_held, flow, 2), what="one runs and one waits in the worker")
        asked = flow.dispatcher.send(Call("/", b'{"data": [{"text": "online"}]}', JSON))
        await eventually(partial(_are_held, flow, 1, "now"), what="the worker has the online request")
        assert Gated.begun == ["bulk"]
        Gated.may_end.release(11)
        assert (await asked).status.code is Code.OK
        await eventually(lambda: len(Gated.begun) == 11, what="the end of the job")
        assert Gated.begun[1] == "online"


async def _are_held(flow: Running, number: int, lane: str = "bulk") -> bool:
    found = await flow.bus.consumer(subjects.work_stream(flow.graph.flow, "gated"), subjects.work_durable(lane))
    return found is not None and found["num_ack_pending"] == number


def has_run(number: int) -> bool:
    return Slow.runs["bulk"] == number
