"""What an error tells its client on each protocol: executor, replica, attempt and request id, where a request got so far."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest
from docarray import BaseDoc, DocList

from streamflow import Client, Executor, requests
from streamflow.broker.errors import ExecutorError
from streamflow.broker.flow import Graph, Node
from streamflow.broker.lifecycle import Stop
from streamflow.broker.settings import BrokerSettings, GatewaySettings
from streamflow.gateway.proto import shallow_pb2 as pb
from streamflow.gateway.service import GatewayProcess
from tests.running import running
from tests.waiting import eventually

from .secured import LOCAL, PROTOCOLS

PLACE = {"executor": "second", "replica": "second/rep-3", "attempt": 2}
BODY = {"data": [{"text": "a"}], "header": {"requestId": "mine"}}
Ports = dict[str, int]


class Item(BaseDoc):
    text: str = ""


class First(Executor):
    @requests
    def pass_on(self, **_: Any) -> None: ...


class Second(Executor):
    @requests(on="/run")
    def run(self, docs: DocList[Item], **_: Any) -> DocList[Item]:
        raise ValueError("no good")

    @requests(on="/talk")
    async def talk(self, doc: Item, **_: Any) -> AsyncIterator[Item]:
        yield Item(text="one")
        raise ValueError("no more")


@pytest.fixture
async def ports(settings: BrokerSettings, flow_name: str) -> AsyncIterator[Ports]:
    retrying = Node("second", needs=("first",), retries=1, retry_on=("ValueError",), backoff_s=0.01)
    async with running(settings, Graph(flow_name, (Node("first"), retrying)), {"first": First}) as flow:
        flow.start_worker("second", Second, replica=3)
        await flow.ready()
        listen = [{"protocol": protocol, "host": LOCAL, "port": 0} for protocol in PROTOCOLS]
        found: dict[str, tuple[str, int]] = {}
        process = GatewayProcess(
            GatewaySettings(**settings.model_dump(), flow=flow_name, listen=listen),
            lambda state, message="", **facts: found.update(facts.get("addresses", {})),
            check_schemas=False,
        )
        flow.workers.append((stop := Stop(), asyncio.create_task(process.main(stop))))
        await eventually(lambda: found, what="the gateway listens")
        await flow.ready()
        yield {protocol: port for protocol, (_, port) in found.items()}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_our_client_says_where_it_failed(ports: Ports, protocol: str) -> None:
    async with Client(host=LOCAL, port=ports[protocol], protocol=protocol, asyncio=True) as client:
        with pytest.raises(ExecutorError) as raised:
            async for _ in client.post("/run", DocList[Item]([Item(text="a")])):
                pass
    told = "executor Second (replica second/rep-3, attempt 2): ValueError('no good') (given up after 2 attempts of 2) (request "
    assert str(raised.value).startswith(told)


async def test_json_says_where_it_failed(ports: Ports) -> None:
    async with aiohttp.ClientSession(f"http://{LOCAL}:{ports['http']}") as session:
        async with session.post("/run", json=BODY) as response:
            said = await response.json()
            assert response.status == 500 and {name: said[name] for name in PLACE} == PLACE
            assert said["header"]["requestId"] == "mine" and said["header"]["status"]["exception"]["executor"] == "Second"
        async with session.post("/run", json={"data": [{"text": 1.5}], "header": {"requestId": "mine"}}) as response:
            said = await response.json()
            assert response.status == 422 and said["executor"] == "first" and said["header"]["requestId"] == "mine"
        async with session.post("/run", json={"header": {"targetExecutor": "("}}) as response:  # it never got to an executor
            assert response.status == 422 and not PLACE.keys() & (await response.json()).keys()
    async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://{LOCAL}:{ports['websocket']}/run") as socket:
        await socket.send_json(BODY)
        said = await socket.receive_json(timeout=10)
        assert {name: said[name] for name in PLACE} == PLACE


async def test_an_event_stream_says_where_it_failed(ports: Ports) -> None:
    async with aiohttp.ClientSession(f"http://{LOCAL}:{ports['http']}") as session, session.get("/talk", json={"text": "a"}) as response:
        events = [(await response.content.readuntil(b"\r\n\r\n")).decode().strip() for _ in range(2)]
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    name, _, data = events[1].partition("\r\ndata: ")
    said = json.loads(data)
    assert name == "event: error" and said["executor"] == "second" and said["replica"] == "second/rep-3" and said["attempt"] >= 1


async def test_jinas_messages_say_where_it_failed(ports: Ports) -> None:
    async with grpc.aio.insecure_channel(f"{LOCAL}:{ports['grpc']}") as channel:
        call = channel.unary_unary(
            "/jina.JinaSingleDataRequestRPC/process_single_data",
            request_serializer=pb.DataRequest.SerializeToString,
            response_deserializer=pb.DataRequest.FromString,
        )
        answer = await call(pb.DataRequest(header={"request_id": "mine", "exec_endpoint": "/run"}), timeout=20)
        assert answer.header.request_id == "mine" and answer.header.status.exception.executor == "Second"
        assert [route.status.code for route in answer.routes] == [0, 0, 1]
        assert answer.routes[-1].status.description == "second/rep-3, attempt 2" and answer.routes[-1].status.exception.executor == "second"
