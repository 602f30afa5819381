"""Online requests go before a job's, and neither starves."""

from __future__ import annotations

import asyncio
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
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call
from streamflow.workers.executor import Executor, requests
from tests.running import running
from tests.waiting import eventually

pytestmark = pytest.mark.feature("QU-05")


class Slow(Executor):
    """Sync, so one at a time, and slow, so that the worker holds no online request beyond the one that runs."""

    runs: Counter[str] = Counter()

    @requests
    def work(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        Slow.runs[docs[0].text or ""] += 1
        time.sleep(0.01)


async def _inputs(count: int) -> AsyncIterator[jobs.Input]:
    for _ in range(count):
        yield jobs.Input(JSON, b'{"data": [{"text": "bulk"}]}')


async def test_a_job_gets_its_small_share_while_online_requests_wait(settings: BrokerSettings, flow_name: str) -> None:
    Slow.runs.clear()
    async with running(settings, Graph(flow_name, (Node("slow"),)), {"slow": Slow}) as flow:
        await jobs.submit(flow.bus, jobs.Order(flow_name), _inputs(400))
        await eventually(lambda: Slow.runs["bulk"] > 5)
        end = time.monotonic() + 1.5

        async def client() -> None:
            while time.monotonic() < end:
                body = json.dumps({"data": [{"text": "online"}]}).encode()
                assert (await flow.dispatcher.send(Call("/", body, JSON))).status.code is Code.OK

        Slow.runs.clear()
        await asyncio.gather(*(client() for _ in range(8)))
        online, bulk = Slow.runs["online"], Slow.runs["bulk"]
        assert online >= 5 * bulk, f"{online} online requests and {bulk} of the job ran"
        assert bulk >= 2, "the job starves"
        await eventually(lambda: Slow.runs["bulk"] > bulk + 20, what="the job goes on in what is left")
