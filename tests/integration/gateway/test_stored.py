"""Answers that are kept: run once under an id, answered by any gateway, fetched again."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow.broker import jobs, reader, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import JSON, Envelope, decode
from streamflow.broker.errors import Code, NotFound
from streamflow.broker.flow import Graph, Journal, Node
from streamflow.broker.replay import replay
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway import stored
from streamflow.gateway.dispatch import Call, Dispatcher
from streamflow.gateway.keeping import is_pending
from streamflow.gateway.principals import ANYONE, CURRENT, Principal
from streamflow.workers.executor import Executor, requests
from tests.running import Running, running
from tests.waiting import eventually


class Mark(Executor):
    """Counts its runs; "held" ones wait for the gate, "bad" ones fail."""

    runs: Counter[str] = Counter()
    gate = asyncio.Event()

    @requests
    async def mark(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        for doc in docs:
            text = doc.text or ""
            Mark.runs[text] += 1
            if text.startswith("held"):
                await Mark.gate.wait()
            if text.startswith("bad"):
                raise ValueError("no")
            doc.text = text + "+"


@pytest.fixture(autouse=True)
def fresh() -> None:
    Mark.runs = Counter()
    Mark.gate = asyncio.Event()


def call(text: str, client_id: str = "", *, keep_s: float = 60.0, **more: Any) -> Call:
    body = json.dumps({"data": [{"text": text}]}).encode()
    return Call("/run", body, JSON, client_id=client_id, keep_s=keep_s, **more)


def text_of(answer: Envelope) -> str:
    assert answer.status.code is Code.OK, answer.status
    return str(json.loads(bytes(answer.body))[0]["text"])


@asynccontextmanager
async def serving(settings: BrokerSettings, name: str, **graph: Any) -> AsyncIterator[Running]:
    async with running(settings, Graph(name, (Node("mark"),), **graph), {"mark": Mark}) as flow:
        yield flow


@asynccontextmanager
async def second_gateway(flow: Running) -> AsyncIterator[Dispatcher]:
    bus = await Bus.connect(flow.settings, "second")
    dispatcher = Dispatcher(bus, flow.graph)
    await dispatcher.start()
    yield dispatcher
    await dispatcher.close()
    await bus.close()


async def recorded(flow: Running) -> int:
    return await reader.count(flow.bus, subjects.results_stream(flow.graph.flow), subjects.result(flow.graph.flow, "online.*"))


async def test_an_answer_is_kept_and_given_again_by_another_gateway(settings: BrokerSettings, flow_name: str) -> None:
    async with serving(settings, flow_name) as flow, second_gateway(flow) as other:
        first = await flow.dispatcher.send(call("a", "order 17"))
        assert text_of(first) == "a+" and first.client_id == "order 17"
        again = await other.result("order 17")
        assert again._replace(extra={}) == first._replace(extra={})
        assert text_of(await other.send(call("a", "order 17"))) == "a+"
        assert Mark.runs == {"a": 1} and await recorded(flow) == 1


async def test_the_same_id_at_the_same_time_runs_once_and_all_are_answered(settings: BrokerSettings, flow_name: str) -> None:
    async with serving(settings, flow_name) as flow, second_gateway(flow) as other:
        several = [gateway.send(call("held", "k")) for gateway in (flow.dispatcher, other) for _ in range(5)]
        await eventually(lambda: Mark.runs["held"], what="it runs")
        late = other.send(call("held", "k"))
        assert flow.dispatcher.open_requests == 5
        Mark.gate.set()
        assert {text_of(each) for each in await asyncio.gather(*several, late)} == {"held+"}
        assert Mark.runs == {"held": 1} and await recorded(flow) == 1


async def test_another_body_under_the_same_id_is_refused(settings: BrokerSettings, flow_name: str) -> None:
    async with serving(settings, flow_name) as flow:
        waiting = flow.dispatcher.send(call("held", "k"))
        await eventually(lambda: Mark.runs["held"], what="it runs")
        for other in (call("other", "k"), call("held", "k", target_executor="mark"), call("held", "k", parameters={"n": 1})):
            refused = await flow.dispatcher.send(other)
            assert refused.status.code is Code.ALREADY_EXISTS and "'k' was used for another request" in refused.status.description
        Mark.gate.set()
        assert text_of(await waiting) == "held+"
        assert (await flow.dispatcher.send(call("other", "k"))).status.code is Code.ALREADY_EXISTS
        assert Mark.runs == {"held": 1}


async def test_who_does_not_wait_is_told_at_once_and_asks_later(settings: BrokerSettings, flow_name: str) -> None:
    async with serving(settings, flow_name) as flow, second_gateway(flow) as other:
        accepted = await flow.dispatcher.send(call("held", keep_s=0.0, detached=True))
        assert is_pending(accepted) and len(accepted.client_id) > 20
        assert is_pending(await other.result(accepted.client_id))
        waiting = asyncio.create_task(other.result(accepted.client_id, wait=True))
        Mark.gate.set()
        assert text_of(await waiting) == "held+"
        assert text_of(await flow.dispatcher.result(accepted.client_id)) == "held+"


async def test_a_client_that_leaves_or_has_no_time_gets_its_answer_later(settings: BrokerSettings, flow_name: str) -> None:
    async with serving(settings, flow_name) as flow:
        left = flow.dispatcher.send(call("held 1", "left"))
        late = await flow.dispatcher.send(call("held 2", "late", deadline=time.time() + 0.2))
        assert late.status.code is Code.DEADLINE_EXCEEDED and "'late'" in late.status.description
        left.cancel()
        Mark.gate.set()
        assert text_of(await flow.dispatcher.result("left", wait=True)) == "held 1+"
        assert text_of(await flow.dispatcher.result("late", wait=True)) == "held 2+"
        assert flow.dispatcher.open_requests == 0


async def test_a_failure_is_kept_as_it_was(settings: BrokerSettings, flow_name: str) -> None:
    async with serving(settings, flow_name) as flow:
        for answer in (await flow.dispatcher.send(call("bad", "k")), await flow.dispatcher.result("k")):
            assert answer.status.code is Code.EXECUTOR_ERROR and answer.status.exception == "ValueError"
        assert Mark.runs == {"bad": 1}


async def test_large_requests_and_answers_are_kept(settings: BrokerSettings, flow_name: str) -> None:
    async with serving(settings, flow_name) as flow:
        text = "x" * 1_500_000
        assert text_of(await flow.dispatcher.send(call(text, "large"))) == text + "+"
        assert text_of(await flow.dispatcher.result("large")) == text + "+"


async def test_what_nobody_asked_for_is_not_found(settings: BrokerSettings, flow_name: str) -> None:
    async with serving(settings, flow_name) as flow:
        for hostile in ("nothing", "*", ">", "a.b c\r\n$JS.API.>", "ÿ\0" * 100):
            answer = await flow.dispatcher.result(hostile)
            assert answer.status.code is Code.NOT_FOUND and "604800 s at most" in answer.status.description
            assert text_of(await flow.dispatcher.send(call(f"t{hostile}", hostile))) == f"t{hostile}+"
            assert text_of(await flow.dispatcher.result(hostile)) == f"t{hostile}+"
        await flow.dispatcher.send(call("plain", "plain", keep_s=0.0))
        assert (await flow.dispatcher.result("plain")).status.code is Code.NOT_FOUND
        refused = await flow.dispatcher.send(call("a", "a", keep_s=1e8))
        assert refused.status.code is Code.INVALID_ARGUMENT and "604800 s at most" in refused.status.description


async def test_an_answer_expires(settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "SETTLED_S", 0.1)
    async with serving(settings, flow_name) as flow:
        await flow.dispatcher.send(call("a", "k", keep_s=1.0))

        async def is_gone() -> bool:
            return (await flow.dispatcher.result("k")).status.code is Code.NOT_FOUND

        await eventually(is_gone, what="the answer expires")
        assert "it was kept for 1 s" in (await flow.dispatcher.result("k")).status.description
        assert text_of(await flow.dispatcher.send(call("a", "k", keep_s=1.0))) == "a+"
        assert Mark.runs == {"a": 2}


async def test_a_gateway_that_died_before_it_published_is_taken_over(settings: BrokerSettings, flow_name: str) -> None:
    async with serving(settings, flow_name) as flow, second_gateway(flow) as other:

        async def die(self: Any, request: Envelope) -> None:
            raise asyncio.CancelledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stored.StoredAnswers, "_publish", die)
            patch.setattr(stored, "SETTLED_S", 0.0)
            lost = flow.dispatcher.send(call("a", "k", deadline=time.time() + 0.3))
            await asyncio.wait({lost})
            assert (await other.result("k")).status.code is Code.NOT_FOUND
        assert text_of(await other.send(call("a", "k"))) == "a+"
        assert text_of(await flow.dispatcher.result("k")) == "a+"


async def test_a_flow_may_keep_all_answers(settings: BrokerSettings, flow_name: str) -> None:
    async with serving(settings, flow_name, keep_results_s=30.0) as flow:
        answer = await flow.dispatcher.send(call("a", keep_s=0.0))
        assert text_of(await flow.dispatcher.result(answer.client_id)) == "a+"
        passed = await flow.dispatcher.send(call("b", "echo", keep_s=0.0, target_executor="nobody"))
        assert text_of(passed) == "b" and text_of(await flow.dispatcher.result("echo")) == "b"


async def test_no_worker_is_needed_to_accept(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("mark"),)), {}) as flow:
        accepted = await flow.dispatcher.send(call("a", "k", detached=True))
        assert is_pending(accepted)
        flow.start_worker("mark", Mark)
        assert text_of(await flow.dispatcher.result("k", wait=True)) == "a+"


async def test_the_journal_holds_whole_requests(settings: BrokerSettings, flow_name: str) -> None:
    async with serving(settings, flow_name, journal=Journal(keep_s=60, max_bytes=1 << 24)) as flow:
        large = "x" * 1_500_000
        await flow.dispatcher.send(call("plain", "c1", keep_s=0.0, deadline=time.time() + 30))
        await flow.dispatcher.send(call("kept", "c2"))
        await flow.dispatcher.send(call(large, keep_s=0.0))
        stream = subjects.journal_stream(flow_name)

        async def is_complete() -> bool:
            return await reader.count(flow.bus, stream) == 3

        await eventually(is_complete, what="three requests are in the journal")
        found = [decode(message.payload) async for message in reader.read(flow.bus, stream)]
        assert [len(each.body) for each in found] == [len(call("plain").body), len(call("kept").body), 0]
        assert all((each.hop, each.reply, each.record, each.deadline, each.extra) == ("", "", "", 0.0, {}) for each in found)
        job = (await replay(flow.bus, flow_name)).job

        async def is_done() -> bool:
            return (await jobs.progress(flow.bus, job)).done == 3

        await eventually(is_done, what="the replay is done")
        assert Mark.runs == {"plain": 2, "kept": 2, large: 2} and (await jobs.progress(flow.bus, job)).failed == 0


async def test_without_a_journal_there_is_no_stream_for_it(settings: BrokerSettings, flow_name: str) -> None:
    async with serving(settings, flow_name) as flow:
        await flow.dispatcher.send(call("a", keep_s=0.0))
        with pytest.raises(NotFound):
            await flow.bus.api(f"STREAM.INFO.{subjects.journal_stream(flow_name)}")


@pytest.mark.parametrize("turns", [1, 2, 5])
async def test_a_gateway_that_ends_does_not_say_that_it_has_accepted_what_it_has_not(
    settings: BrokerSettings, flow_name: str, turns: int
) -> None:
    async with serving(settings, flow_name) as flow, second_gateway(flow) as leaving:
        asked = leaving.send(call("a", "order", detached=True))
        for _ in range(turns):
            await asyncio.sleep(0)
        await leaving.close()
        assert (await asyncio.wait_for(asked, 5)).status.code is Code.UNAVAILABLE


async def test_no_id_that_a_caller_makes_up_leads_to_the_answer_of_another(settings: BrokerSettings, flow_name: str) -> None:
    """Ids may hold any character, in the body of a request and, encoded, in a path."""
    async with serving(settings, flow_name) as flow:
        CURRENT.set(Principal("alice", "shop"))
        assert text_of(await flow.dispatcher.send(call("mine", "order"))) == "mine+"
        assert text_of(await flow.dispatcher.result("order")) == "mine+"
        names = ("shop", "alice", subjects.digest("shop"), subjects.digest("alice"), subjects.digest("shop\0alice\0")[:16])
        pairs = ((a, b, mark) for a in ("", *names) for b in names for mark in ("\0", "-", "."))
        made_up = ["order", *(f"{a}{mark}{b}{mark}order" for a, b, mark in pairs)]
        for caller in (ANYONE, Principal("alice"), Principal("alice", "shop\0alice")):
            CURRENT.set(caller)
            found = await asyncio.gather(*map(flow.dispatcher.result, made_up))
            assert {answer.status.code for answer in found} == {Code.NOT_FOUND}, caller
