"""A client over the broker itself reads its input no further ahead than its limit in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow import Executor, requests
from streamflow.broker.flow import Graph, Node
from streamflow.broker.settings import BrokerSettings
from streamflow.client import Client
from tests.running import running

MOST_BYTES = 600_000
TEXT = "x" * 100_000


class Echo(Executor):
    @requests(on="/echo")
    def echo(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return docs


@pytest.mark.feature("CL-11")
@pytest.mark.parametrize("in_order", [False, True])
async def test_input_is_read_while_what_is_under_way_takes_less_than_the_limit(
    settings: BrokerSettings, flow_name: str, in_order: bool
) -> None:
    pulled = taken = most = 0

    async def documents() -> AsyncIterator[TextDoc]:
        nonlocal pulled, most
        for _ in range(40):
            most = max(most, pulled - taken)
            pulled += len(TEXT)
            yield TextDoc(text=TEXT)

    address = f"{settings.broker_url}/{flow_name}"
    async with (
        running(settings, Graph(flow_name, (Node("echo"),)), {"echo": Echo}),
        Client(address, asyncio=True, prefetch_bytes=MOST_BYTES) as client,
    ):
        answers = client.post("/echo", documents, request_size=1, results_in_order=in_order, return_type=DocList[TextDoc])
        async for docs in answers:
            await asyncio.sleep(0.002)  # slower than the worker
            taken += len(docs[0].text)
    assert taken == 40 * len(TEXT)
    assert MOST_BYTES / 2 < most < MOST_BYTES + len(TEXT)
