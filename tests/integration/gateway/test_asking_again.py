"""After its connection was away, a gateway looks for its open requests until somebody can tell where they are."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from typing import Any, ClassVar

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow import Executor, requests
from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import JSON, MAX_HEADER_BYTES
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.gateway.asking import ASK_AGAIN_S
from streamflow.gateway.dispatch import Call, Dispatcher
from tests.chaos.proxy import Proxy
from tests.running import Running, running
from tests.waiting import eventually

REQUESTS = 50


class Echo(Executor):
    @requests
    def work(self, **_: Any) -> None: ...


async def queued(flow: Running, number: int) -> None:
    """Wait until the queue of executor `e` holds so many."""
    queue = subjects.work_stream(flow.graph.flow, "e")

    async def holds() -> bool:
        return bool((await flow.bus.api(f"STREAM.INFO.{queue}"))["state"]["messages"] == number)

    await eventually(holds)


async def test_a_lost_request_is_published_again_once_its_queue_answers(
    own_broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a cluster whose stream has no leader for seconds after the server died that held the gateway's connection."""
    settings = BrokerSettings(broker_url=own_broker.url)
    graph, queue = Graph("shop", (Node("e"),)), subjects.work_stream("shop", "e")
    async with running(settings, graph, {}) as flow:
        answer = flow.dispatcher.send(Call("/"))
        await queued(flow, 1)
        await flow.bus.api(f"STREAM.DELETE.{queue}")
        own_broker.kill()
        await eventually(lambda: not flow.bus.connected)
        await asyncio.to_thread(own_broker.start)
        with caplog.at_level(logging.DEBUG, "streamflow.gateway.asking"):
            await eventually(lambda: "nobody knows yet where it is" in caplog.text)
        await provision(flow.bus, graph, settings)
        flow.start_worker("e", Echo)
        assert (await asyncio.wait_for(answer, 15)).status.code is Code.OK


class Gated(Executor):
    """Works when it is let to."""

    gate: ClassVar[asyncio.Event]
    done: ClassVar[Counter[str]]

    @requests
    async def work(self, docs: DocList[TextDoc], **_: Any) -> None:
        await Gated.gate.wait()
        Gated.done.update(str(doc.text) for doc in docs)


async def test_answers_sent_while_the_connection_was_broken_unnoticed_come_again_at_once(settings: BrokerSettings, flow_name: str) -> None:
    """The worker's own connection holds and the broker still takes the gateway for there, so neither knows that they are lost."""
    Gated.gate, Gated.done = asyncio.Event(), Counter()
    proxy = Proxy(settings.broker_url)
    await proxy.start()
    async with running(settings, Graph(flow_name, (Node("e"),)), {"e": Gated}, concurrency=REQUESTS) as flow:
        bus = await Bus.connect(BrokerSettings(broker_url=proxy.url), "behind the proxy")
        dispatcher = Dispatcher(bus, flow.graph)
        await dispatcher.start()
        calls = [Call("/", body=json.dumps([{"text": str(n)}]).encode(), content_type=JSON) for n in range(REQUESTS)]
        answers = [dispatcher.send(call) for call in calls]
        await queued(flow, REQUESTS)
        proxy.fall_silent()
        Gated.gate.set()
        await queued(flow, 0)
        assert not any(answer.done() for answer in answers)
        back = asyncio.Event()
        bus.on_reconnect(back.set)
        proxy.cut()
        await asyncio.wait_for(back.wait(), 5)
        async with asyncio.timeout(ASK_AGAIN_S):
            found = await asyncio.gather(*answers)
        assert {answer.status.code for answer in found} == {Code.OK}
        assert Gated.done == Counter(str(n) for n in range(REQUESTS))
        await dispatcher.close()
        await bus.close()
    await proxy.stop()


async def restarted(flow: Running, broker: EmbeddedBroker) -> None:
    """The broker has been away, and the queue of `e` is lost."""
    await flow.bus.api(f"STREAM.PURGE.{subjects.work_stream(flow.graph.flow, 'e')}")
    broker.kill()
    await eventually(lambda: not flow.bus.connected)
    await asyncio.to_thread(broker.start)


async def test_a_lost_request_with_a_large_body_is_published_again(own_broker: EmbeddedBroker) -> None:
    settings = BrokerSettings(broker_url=own_broker.url)
    async with running(settings, Graph("shop", (Node("e"),)), {}) as flow:
        text = "x" * (settings.inline_bytes + 1)
        answer = flow.dispatcher.send(Call("/", json.dumps([{"text": text}]).encode(), JSON))
        await queued(flow, 1)
        await restarted(flow, own_broker)
        flow.start_worker("e", Echo)
        assert (await asyncio.wait_for(answer, 15)).status.code is Code.OK


async def test_one_that_cannot_be_published_again_is_told_so_and_keeps_back_no_other(own_broker: EmbeddedBroker) -> None:
    """Its parameters just fit into a header; the name of a second run does not."""
    settings = BrokerSettings(broker_url=own_broker.url)
    async with running(settings, Graph("shop", (Node("e"),)), {}) as flow:
        room = MAX_HEADER_BYTES - 400
        while True:
            full = flow.dispatcher.send(Call("/", parameters={"x": "x" * room}))
            await asyncio.sleep(0)
            if full.done():
                break
            last, room = full, room + 5
        others = [flow.dispatcher.send(Call("/")) for _ in range(3)]
        await queued(flow, 3 + (room - MAX_HEADER_BYTES + 400) // 5)
        await restarted(flow, own_broker)
        flow.start_worker("e", Echo)
        assert {answer.status.code for answer in await asyncio.wait_for(asyncio.gather(*others), 15)} == {Code.OK}
        assert (await asyncio.wait_for(last, 5)).status.code is Code.TOO_LARGE


async def test_parameters_that_are_too_large_are_refused_beside_a_large_body(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("e"),)), {"e": Echo}) as flow:
        call = Call("/", bytes(settings.inline_bytes + 1), JSON, parameters={"x": "x" * MAX_HEADER_BYTES})
        assert (await asyncio.wait_for(flow.dispatcher.send(call), 5)).status.code is Code.TOO_LARGE
