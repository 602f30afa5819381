"""A client over the broker itself reads its input no further ahead than its limit in bytes."""

from __future__ import annotations

from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow import Executor, requests
from streamflow.broker.flow import Graph, Node
from streamflow.broker.settings import BrokerSettings
from streamflow.client import Client
from tests.reading import TEXT, Reading
from tests.running import running

MOST_BYTES = 600_000


class Echo(Executor):
    @requests(on="/echo")
    def echo(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return docs


@pytest.mark.feature("CL-11")
@pytest.mark.parametrize("in_order", [False, True])
async def test_input_is_read_while_what_is_under_way_takes_less_than_the_limit(
    settings: BrokerSettings, flow_name: str, in_order: bool
) -> None:
    reading = Reading(TextDoc, 40)
    address = f"{settings.broker_url}/{flow_name}"
    async with (
        running(settings, Graph(flow_name, (Node("echo"),)), {"echo": Echo}),
        Client(address, asyncio=True, prefetch_bytes=MOST_BYTES) as client,
    ):
        answers = client.post("/echo", reading.documents, request_size=1, results_in_order=in_order, return_type=DocList[TextDoc])
        await reading.take(answers)
    assert MOST_BYTES / 2 < reading.most_ahead < MOST_BYTES + len(TEXT)
