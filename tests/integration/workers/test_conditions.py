"""`when` at run time: the scenarios T-30, T-31 and T-32, and documents that no class knows."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from streamflow.broker.envelope import JSON, Envelope
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call
from streamflow.workers.executor import Executor, dynamic_batching, requests
from tests.running import Running, running

pytestmark = pytest.mark.feature("DC-11", "FL-30")

FIVE, FOUR = {"tags__key": {"$eq": 5}}, {"tags__key": {"$eq": 4}}


class Tagged(BaseDoc):
    tags: dict[str, float]
    seen: str = ""


class Sees(Executor):
    calls: list[tuple[str, int]] = []

    @requests
    def see(self, docs: DocList[Tagged], **kwargs: Any) -> None:
        Sees.calls.append((self.runtime_args.name, len(docs)))
        for doc in docs:
            doc.seen += self.runtime_args.name


class Batches(Executor):
    @dynamic_batching(preferred_batch_size=4, timeout=50)
    @requests
    def see(self, docs: DocList[Tagged], **kwargs: Any) -> None:
        for doc in docs:
            doc.seen = "batched"


async def ask(flow: Running) -> Envelope:
    body = json.dumps({"data": [{"tags": {"key": 5}}, {"tags": {"key": 4}}], "parameters": {"p": 1}}).encode()
    answer = await asyncio.wait_for(flow.dispatcher.send(Call("/x", body, JSON)), 20)
    assert answer.status.code is Code.OK, answer.status
    assert answer.parameters == {"p": 1}
    return answer


def keys(answer: Envelope) -> list[tuple[float, str]]:
    return [(doc["tags"]["key"], doc.get("seen") or "") for doc in json.loads(bytes(answer.body))]


async def test_t30_a_condition_filters_what_an_executor_and_all_behind_it_get(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("a"), Node("b", needs=("a",), when=FIVE), Node("c", needs=("b",))))
    async with running(settings, graph, {"a": Sees, "b": Sees, "c": Sees}) as flow:
        assert keys(await ask(flow)) == [(5.0, "abc")]


@pytest.mark.feature("FL-32")
async def test_t31_branches_with_complementary_conditions_meet_again(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(
        flow_name, (Node("a"), Node("b", needs=("a",), when=FIVE), Node("c", needs=("a",), when=FOUR), Node("end", needs=("b", "c")))
    )
    async with running(settings, graph, {"a": Sees, "b": Sees, "c": Sees, "end": ""}) as flow:
        assert keys(await ask(flow)) == [(5.0, "ab"), (4.0, "ac")]


@pytest.mark.feature("FL-31")
async def test_t32_contradictory_conditions_leave_nothing_and_call_nobody(settings: BrokerSettings, flow_name: str) -> None:
    Sees.calls.clear()
    graph = Graph(flow_name, (Node("a", when=FIVE), Node("b", needs=("a",), when=FOUR), Node("c", needs=("b",))))
    async with running(settings, graph, {"a": Sees, "b": Sees, "c": ""}) as flow:
        assert keys(await ask(flow)) == []
        assert Sees.calls == [("a", 1)]


async def test_a_condition_holds_where_nothing_runs_and_where_calls_are_shared(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("no-op", when=FIVE), Node("batches", needs=("no-op",), when={"tags__key": {"$gt": 1}})))
    async with running(settings, graph, {"no-op": "", "batches": Batches}) as flow:
        assert keys(await ask(flow)) == [(5.0, "batched")]


async def test_what_branches_make_together_is_conditioned_not_each_of_them(settings: BrokerSettings, flow_name: str) -> None:
    """Of equal ids the later branch's value counts, and the request's own copy comes last here: nothing is left that passed "a"."""
    graph = Graph(flow_name, (Node("a"), Node("b", needs=("a", "gateway"), when={"seen": {"$eq": "xa"}})))
    async with running(settings, graph, {"a": Sees, "b": Sees}) as flow:
        body = json.dumps({"data": [{"id": "1", "tags": {}, "seen": "x"}]}).encode()
        answer = await asyncio.wait_for(flow.dispatcher.send(Call("/x", body, JSON)), 20)
        assert json.loads(bytes(answer.body)) == []
