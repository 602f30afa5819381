"""A gateway and the schemas of the workers that it finds."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from streamflow.broker.errors import FlowError
from streamflow.broker.flow import Graph, Node
from streamflow.broker.lifecycle import Stop
from streamflow.broker.settings import BrokerSettings, GatewaySettings
from streamflow.gateway.schema_watch import SchemaWatch
from streamflow.gateway.service import GatewayProcess
from streamflow.workers.executor import Executor, requests
from tests.running import running
from tests.waiting import eventually

pytestmark = pytest.mark.feature("FL-12", "EX-41")

LIMIT_S = 10.0


class Text(BaseDoc):
    text: str = ""


class Vector(BaseDoc):
    embedding: list[float]


class Texts(Executor):
    @requests(on="/x")
    def texts(self, docs: DocList[Text], **kwargs: Any) -> None: ...


class Vectors(Executor):
    @requests(on="/x")
    def vectors(self, docs: DocList[Vector], **kwargs: Any) -> None: ...


def graph_of(name: str) -> Graph:
    return Graph(name, (Node("first"), Node("second", ("first",))))


async def test_a_gateway_refuses_a_flow_whose_executors_do_not_fit(settings: BrokerSettings, flow_name: str) -> None:
    listen: Any = [{"protocol": "http", "host": "127.0.0.1", "port": 0}]
    gateway = GatewayProcess(GatewaySettings(**settings.model_dump(), flow=flow_name, listen=listen))
    async with running(settings, graph_of(flow_name), {"first": Texts, "second": Vectors}), asyncio.timeout(LIMIT_S):
        with pytest.raises(FlowError, match="first -> second, /x: field 'embedding': second requires it, first does not give it"):
            await gateway.main(Stop())


async def test_what_fits_is_served_and_a_misfit_in_the_middle_of_a_change_is_logged_only(
    settings: BrokerSettings, flow_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    refused: list[FlowError] = []
    async with running(settings, graph_of(flow_name), {"first": Texts, "second": Texts}) as flow, asyncio.timeout(LIMIT_S):
        await SchemaWatch(flow.dispatcher.catalog, lambda: flow.graph, refused.append).run()
        with caplog.at_level(logging.ERROR):
            flow.start_worker("second", Vectors)
            await eventually(lambda: any("second requires it" in text for text in caplog.messages), what="the misfit is logged")
    assert refused == []


async def test_workers_that_are_not_ready_are_waited_for(settings: BrokerSettings, flow_name: str) -> None:
    refused: list[FlowError] = []
    async with running(settings, graph_of(flow_name), {}) as flow, asyncio.timeout(LIMIT_S):
        watching = asyncio.create_task(SchemaWatch(flow.dispatcher.catalog, lambda: flow.graph, refused.append).run())
        flow.start_worker("second", Vectors)
        await eventually(lambda: flow.dispatcher.catalog.missing() == ["first"], what="the second is ready")
        assert not watching.done() and refused == []
        flow.start_worker("first", Texts)
        await watching
    assert len(refused) == 1
