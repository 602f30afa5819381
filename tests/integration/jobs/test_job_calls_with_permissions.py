"""Everything about jobs by every way, on a broker that lets nobody do more than their role needs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow import Executor, requests
from streamflow.broker import accounts
from streamflow.broker.accounts import AUTH_FILE, settings_for
from streamflow.broker.bus import Bus
from streamflow.broker.flow import Graph, Node
from streamflow.broker.lifecycle import Stop
from streamflow.broker.permissions import Role
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings, GatewaySettings, WorkerSettings
from streamflow.broker.topology import provision
from streamflow.client import AsyncClient, Client
from streamflow.gateway.service import GatewayProcess
from streamflow.jobs import State
from streamflow.workers.service import Worker
from tests.waiting import eventually

GRAPH = Graph("shop", (Node("upper"),))


class Upper(Executor):
    @requests(on="/upper")
    def upper(self, docs: DocList[TextDoc], **kwargs: object) -> DocList[TextDoc]:
        for doc in docs:
            doc.text = str(doc.text).upper()
        return docs


async def use(client: AsyncClient, way: str) -> None:
    job = await client.submit("/upper", [TextDoc(text="a"), TextDoc(text="b" * 700_000)], request_size=1, key=way)
    assert [len(response.docs[0].text) async for response in job.results(DocList[TextDoc])] in ([1, 700_000], [700_000, 1])
    assert (await job.wait(timeout=20)).state is State.DONE and job.id in [status.id for status in await client.jobs()]
    again = await client.replay(job=job.id)
    assert (await again.wait(timeout=20)).done == 2
    slow = await client.submit("/upper", [TextDoc(text=str(at)) for at in range(5)], request_size=1, rate=0.5)
    assert (await slow.pause()).state is State.PAUSED and (await slow.resume()).state is State.RUNNING
    assert (await slow.cancel()).state is State.CANCELLED


async def test_jobs_under_least_privilege(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    accounts.write(tmp_path / "keys", "default", [GRAPH])
    broker = EmbeddedBroker(tmp_path / "broker", auth=tmp_path / "keys" / AUTH_FILE)
    broker.start()
    monkeypatch.setenv("STREAMFLOW_BROKER_CREDENTIALS", str(tmp_path / "keys" / "default"))
    settings = BrokerSettings(broker_url=broker.url, connect_wait_s=5)
    bus = await Bus.connect(settings_for(settings, Role.PROVISIONER, "shop"), "deploy")
    await provision(bus, GRAPH, settings)
    await bus.close()
    stop, found = Stop(), dict[str, tuple[str, int]]()
    listen = [{"protocol": protocol, "host": "127.0.0.1", "port": 0} for protocol in ("http", "grpc")]
    gateway = GatewayProcess(
        GatewaySettings(**settings.model_dump(), flow="shop", listen=listen),
        lambda state, message="", **facts: found.update(facts.get("addresses", {})),
    )
    worker = Worker(WorkerSettings(**settings.model_dump(), flow="shop", name="upper"), Upper, None, None)
    tasks = [asyncio.create_task(process.main(stop)) for process in (gateway, worker)]
    try:
        await eventually(lambda: found, what="the gateway listens")
        urls = {way: f"{way}://{host}:{port}" for way, (host, port) in found.items()} | {"nats": f"{broker.url}/shop"}
        for way, url in urls.items():
            async with Client(url, asyncio=True) as client:
                await eventually(client.is_flow_ready, what="the flow is ready", timeout_s=20)
                await use(client, way)
        async with Client(urls["nats"], asyncio=True) as client:
            assert [docs[0].text async for docs in client.post("/upper", TextDoc(text="now"), return_type=DocList[TextDoc])] == ["NOW"]
    finally:
        stop.set("test over")
        await asyncio.gather(*tasks)
        broker.stop()
    assert "permissions violation" not in caplog.text.lower()
