"""After its connection was away, a gateway looks for its open requests until somebody can tell where they are."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from streamflow import Executor, requests
from streamflow.broker import subjects
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.gateway.dispatch import Call
from tests.running import running
from tests.waiting import eventually


class Echo(Executor):
    @requests
    def work(self, **_: Any) -> None: ...


async def test_a_lost_request_is_published_again_once_its_queue_answers(
    own_broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a cluster whose stream has no leader for seconds after the server died that held the gateway's connection."""
    settings = BrokerSettings(broker_url=own_broker.url)
    graph, queue = Graph("shop", (Node("e"),)), subjects.work_stream("shop", "e")
    async with running(settings, graph, {}) as flow:
        answer = flow.dispatcher.send(Call("/"))

        async def is_stored() -> bool:
            return bool((await flow.bus.api(f"STREAM.INFO.{queue}"))["state"]["messages"])

        await eventually(is_stored)
        await flow.bus.api(f"STREAM.DELETE.{queue}")
        own_broker.kill()
        await eventually(lambda: not flow.bus.connected)
        await asyncio.to_thread(own_broker.start)
        with caplog.at_level(logging.DEBUG, "streamflow.gateway.dispatch"):
            await eventually(lambda: "nobody knows yet where it is" in caplog.text)
        await provision(flow.bus, graph, settings)
        flow.start_worker("e", Echo)
        assert (await asyncio.wait_for(answer, 15)).status.code is Code.OK
