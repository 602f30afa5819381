"""Tenants take turns for the places of a gateway with `fair_in_flight`; read from the order in which the executor ran their requests."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from contextvars import copy_context
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow.broker.envelope import JSON, Envelope
from streamflow.broker.errors import Code, FlowError
from streamflow.broker.flow import Graph, Node
from streamflow.broker.lifecycle import Stop
from streamflow.broker.settings import BrokerSettings, GatewaySettings
from streamflow.gateway import turnstile
from streamflow.gateway.dispatch import Call
from streamflow.gateway.principals import CURRENT, Limits, Principal
from streamflow.gateway.service import GatewayProcess
from streamflow.gateway.turnstile import FairDispatcher
from streamflow.workers.executor import Executor, requests
from tests.running import Running, running
from tests.waiting import eventually

pytestmark = pytest.mark.feature("QU-05")
PLACES = 4
LOCAL = "127.0.0.1"


class Ledger(Executor):
    """Writes down whose requests it runs; they wait at a closed gate."""

    runs: list[str] = []
    gate = asyncio.Event()

    @requests
    async def work(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        Ledger.runs.append(docs[0].text or "")
        await Ledger.gate.wait()
        await asyncio.sleep(0.002)

    @requests(on="/words")
    async def words(self, doc: TextDoc, **kwargs: Any) -> AsyncIterator[TextDoc]:
        Ledger.runs.append(doc.text or "")
        yield TextDoc(text="first")
        await Ledger.gate.wait()
        yield TextDoc(text="last")


@pytest.fixture
async def flow(settings: BrokerSettings, flow_name: str) -> AsyncIterator[Running]:
    Ledger.runs, Ledger.gate = [], asyncio.Event()
    async with running(settings, Graph(flow_name, (Node("a"),)), {"a": Ledger}) as found:
        yield found
        Ledger.gate.set()


@pytest.fixture
async def fair(flow: Running) -> AsyncIterator[FairDispatcher]:
    dispatcher = FairDispatcher(flow.bus, flow.graph, places=PLACES)
    await dispatcher.start()
    yield dispatcher
    await dispatcher.close()


def call(text: str, **options: Any) -> Call:
    return Call("/", json.dumps({"data": [{"text": text}]}).encode(), JSON, **options)


def send(fair: FairDispatcher, tenant: str, limits: Limits | None = None, **options: Any) -> asyncio.Future[Envelope]:
    def as_tenant() -> asyncio.Future[Envelope]:
        CURRENT.set(Principal("jo", tenant, limits or Limits()))
        return fair.send(call(tenant, **options))

    return copy_context().run(as_tenant)


async def test_a_tenant_that_comes_late_waits_for_one_turn(fair: FairDispatcher) -> None:
    many = [send(fair, "many") for _ in range(300)]
    few = [send(fair, "few") for _ in range(30)]
    assert fair.open_requests == 330
    await eventually(lambda: len(Ledger.runs) == PLACES, what="all places are taken")
    Ledger.gate.set()
    answers = await asyncio.gather(*many, *few)
    assert {answer.status.code for answer in answers} == {Code.OK} and fair.open_requests == 0
    until = len(Ledger.runs) - Ledger.runs[::-1].index("few")
    assert Counter(Ledger.runs[:until])["many"] <= PLACES + 30 + PLACES


async def test_who_leaves_while_it_waits_takes_no_turn(fair: FairDispatcher) -> None:
    held = [send(fair, "a") for _ in range(PLACES)]
    waiting = [send(fair, "a") for _ in range(50)]
    last = send(fair, "a")
    for each in waiting:
        each.cancel()
    await eventually(lambda: fair.open_requests == PLACES + 1, what="they are forgotten")
    await eventually(lambda: len(Ledger.runs) == PLACES, what="those in the flow run")
    for each in held[:2]:  # in the flow: the workers are told, and there is room for the next one
        each.cancel()
    await eventually(lambda: len(Ledger.runs) == PLACES + 1, what="the one that still waits is let in")
    Ledger.gate.set()
    assert {answer.status.code for answer in await asyncio.gather(*held[2:], last)} == {Code.OK}
    assert Ledger.runs == ["a"] * (PLACES + 1)
    again = await asyncio.gather(*(send(fair, "a") for _ in range(2 * PLACES)))
    assert {answer.status.code for answer in again} == {Code.OK}, "no place is lost"


async def test_the_deadline_counts_while_a_request_waits(fair: FairDispatcher) -> None:
    held = [send(fair, "a") for _ in range(PLACES)]
    late = await send(fair, "b", deadline=time.time() + 0.1)
    assert late.status.code is Code.DEADLINE_EXCEEDED and "its tenant's turn" in late.status.description
    Ledger.gate.set()
    await asyncio.gather(*held)
    assert "b" not in Ledger.runs


async def test_a_tenant_may_not_fill_the_gateway(fair: FairDispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnstile, "WAITING", 5)
    accepted = [send(fair, "a") for _ in range(PLACES + 5)]
    refused = await send(fair, "a")
    assert refused.status.code is Code.RESOURCE_EXHAUSTED and "'a'" in refused.status.description
    accepted.append(send(fair, "b"))
    limited = await send(fair, "c", Limits(max_request_bytes=1))  # by its own limits, at once
    assert limited.status.code is Code.TOO_LARGE
    Ledger.gate.set()
    assert {answer.status.code for answer in await asyncio.gather(*accepted)} == {Code.OK}


async def test_a_stream_has_its_place_until_it_ends(fair: FairDispatcher) -> None:
    async def read(tenant: str) -> list[str]:
        CURRENT.set(Principal("jo", tenant))
        words = Call("/words", json.dumps({"data": [{"text": tenant}]}).encode(), JSON)
        async with aclosing(fair.stream(words)) as parts:
            return [part.status.code.value async for part in parts]

    streams = [asyncio.create_task(read("a")) for _ in range(PLACES + 2)]
    await eventually(lambda: len(Ledger.runs) == PLACES, what="all places are taken")
    later = send(fair, "b")
    streams[-1].cancel()
    streams[0].cancel()
    await eventually(lambda: len(Ledger.runs) == PLACES + 1, what="there is room for one")
    Ledger.gate.set()
    assert (await later).status.code is Code.OK
    for codes in await asyncio.gather(*streams[1:-1]):
        assert codes == ["OK"] * 3
    assert fair.open_requests == 0


async def test_over_http_by_who_calls(flow: Running, settings: BrokerSettings, tmp_path: Path) -> None:
    rules = tmp_path / "auth.yml"
    rules.write_text(
        json.dumps({"tokens": [{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in ("many", "few")]})
    )
    listen = [{"protocol": "http", "host": LOCAL, "port": 0}]
    options = {**settings.model_dump(), "flow": flow.graph.flow, "listen": listen, "fair_in_flight": PLACES}
    found: dict[str, tuple[str, int]] = {}
    stop = Stop()
    process = GatewayProcess(
        GatewaySettings(**options, auth_file=str(rules)), lambda state, message="", **facts: found.update(facts.get("addresses", {}))
    )
    serving = asyncio.create_task(process.main(stop))
    await eventually(lambda: found or serving.done(), what="the gateway listens")
    host, port = found["http"]

    async with aiohttp.ClientSession(f"http://{host}:{port}", connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(name: str) -> int:
            headers = {"authorization": f"Bearer {name}"}
            async with session.post("/", json={"data": [{"text": name}]}, headers=headers) as answer:
                return answer.status

        async def ask_on() -> None:
            while not served.is_set():
                assert await ask("many") == 200

        served = asyncio.Event()
        many = [asyncio.create_task(ask_on()) for _ in range(40)]
        Ledger.gate.set()
        await eventually(lambda: len(Ledger.runs) > 100, what="all places are taken")
        assert [await ask("few") for _ in range(10)] == [200] * 10
        served.set()
        await asyncio.gather(*many)
    first, last = Ledger.runs.index("few"), len(Ledger.runs) - 1 - Ledger.runs[::-1].index("few")
    assert (last - first - 9) / 9 < 15, "each one waited behind all that were there"
    stop.set("test over")
    await serving
    with pytest.raises(FlowError, match="set auth_file or ssl_ca"):
        await GatewayProcess(GatewaySettings(**options)).main(Stop())
