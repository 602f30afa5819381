"""Branches, shards and leaves that meet: merged in the order of the flow, exactly once, whoever comes last."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc

from streamflow.broker import subjects
from streamflow.broker.envelope import JSON, Envelope
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node, Polling
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.correlator import Waiting
from streamflow.gateway.dispatch import Call
from streamflow.workers.executor import Executor, requests
from tests.running import Running, running


class Says(Executor):
    """Appends a document that says who was here and how many came; slower ones come last."""

    def __init__(self, pause_s: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pause_s = pause_s

    @requests
    async def say(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        await asyncio.sleep(self.pause_s)
        docs.append(TextDoc(text=f"{self.runtime_args.name} was here and got {len(docs)} document"))


class Pairs(Executor):
    @requests
    def pair(self, docs: DocList[TextDoc], docs_matrix: Any = None, docs_map: Any = None, **kwargs: Any) -> DocList[TextDoc]:
        assert list(docs_map) == ["left", "right"] and [len(each) for each in docs_matrix] == [len(each) for each in docs_map.values()]
        return DocList[TextDoc](TextDoc(text=f"{a.text} | {b.text}") for a, b in zip(*docs_matrix, strict=True))


class Match(BaseDoc):
    shard: int


class Query(BaseDoc):
    text: str = ""
    matches: DocList[Match] = DocList[Match]()


class Shard(Executor):
    held: dict[int, list[str]] = {}

    @requests(on="/index")
    def index(self, docs: DocList[Query], **kwargs: Any) -> None:
        Shard.held.setdefault(self.runtime_args.shard_id, []).extend(doc.text for doc in docs)

    @requests(on="/search")
    def search(self, docs: DocList[Query], **kwargs: Any) -> None:
        for doc in docs:
            doc.matches.append(Match(shard=self.runtime_args.shard_id))

    @requests(on="/fail")
    def fail(self, docs: DocList[Query], **kwargs: Any) -> None:
        if self.runtime_args.shard_id == 1:
            raise ValueError("shard 1 is broken")


async def ask(flow: Running, endpoint: str, *values: str, **options: Any) -> Envelope:
    body = json.dumps({"data": [{"text": value} for value in values]}).encode()
    return await asyncio.wait_for(flow.dispatcher.send(Call(endpoint, body, JSON, **options)), 20)


def texts(answer: Envelope) -> list[str]:
    assert answer.status.code is Code.OK, answer.status
    return [doc["text"] for doc in json.loads(bytes(answer.body))]


async def no_parts_left(flow: Running) -> None:
    limit = time.monotonic() + 5
    for place in flow.graph.meeting_places:
        while (await flow.bus.api(f"STREAM.INFO.{subjects.part_stream(flow.graph.flow, place)}"))["state"]["messages"]:
            assert time.monotonic() < limit, f"parts are left at {place}"


DIAMOND = (Node("foo"), Node("bar", needs=("foo",)), Node("baz", needs=("foo",)), Node("end", needs=("bar", "baz")))


@pytest.mark.feature("FL-06")
@pytest.mark.parametrize("slow", ["bar", "baz"])
async def test_branches_are_merged_in_the_order_of_needs_whichever_is_last(settings: BrokerSettings, flow_name: str, slow: str) -> None:
    async with running(settings, Graph(flow_name, DIAMOND), {}) as flow:
        for name in ("foo", "bar", "baz"):
            flow.start_worker(name, Says, uses_with={"pause_s": 0.1 * (name == slow)})
        flow.start_worker("end", "")
        await flow.ready()
        answer = await ask(flow, "/x")
        assert texts(answer) == [
            "foo was here and got 0 document",
            "bar was here and got 1 document",
            "baz was here and got 1 document",
        ]
        assert [hop.executor for hop in answer.trail] == ["foo", "bar", "baz", "end"]
        await no_parts_left(flow)


async def test_several_leaves_make_one_answer(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("foo"), Node("bar", needs=("foo",)), Node("baz", needs=("foo",))))
    async with running(settings, graph, {"foo": Says, "bar": Says, "baz": Says}) as flow:
        for _ in range(20):
            assert texts(await ask(flow, "/x")) == [
                "foo was here and got 0 document",
                "bar was here and got 1 document",
                "baz was here and got 1 document",
            ]
        await no_parts_left(flow)


@pytest.mark.feature("FL-06")
async def test_parallel_roots_meet_on_equal_documents(settings: BrokerSettings, flow_name: str) -> None:
    """The client sent no ids, so both roots have to give its documents the same ones."""
    graph = Graph(flow_name, (Node("left"), Node("right"), Node("end", needs=("left", "right"))))
    async with running(settings, graph, {"left": Says, "right": Says, "end": ""}) as flow:
        assert texts(await ask(flow, "/x", "a", "b")) == [
            "a",
            "b",
            "left was here and got 2 document",
            "right was here and got 2 document",
        ]


@pytest.mark.feature("FL-07", "EX-13")
async def test_an_unreduced_join_gets_its_branches_side_by_side(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("left"), Node("right"), Node("pairs", needs=("left", "right"), no_reduce=True)))
    async with running(settings, graph, {"left": Says, "right": Says, "pairs": Pairs}) as flow:
        assert texts(await ask(flow, "/x")) == ["left was here and got 0 document | right was here and got 0 document"]


@pytest.mark.feature("FL-35")
async def test_a_target_passes_over_branches_and_the_join(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, DIAMOND), {name: Says for name in ("foo", "bar", "baz", "end")}) as flow:
        answer = await ask(flow, "/x", target_executor="ba")
        assert texts(answer) == ["bar was here and got 0 document", "baz was here and got 0 document"]
        assert texts(await ask(flow, "/x", "kept", target_executor="nobody")) == ["kept"]
        await no_parts_left(flow)


async def test_a_failing_branch_answers_at_once_and_nothing_hangs(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("s", shards=2),))
    async with running(settings, graph, {}) as flow:
        for shard in range(2):
            flow.start_worker("s", Shard, shard=shard)
        await flow.ready()
        # `/fail` has no polling of its own: ANY. Poll all by a flow that says so.
        answer = await ask(flow, "/search", "q")
        assert answer.status.code is Code.OK
    graph = Graph(f"{flow_name}x", (Node("s", shards=2, polling={"*": Polling.ALL}),))
    async with running(settings, graph, {}) as flow:
        for shard in range(2):
            flow.start_worker("s", Shard, shard=shard)
        await flow.ready()
        answer = await ask(flow, "/fail", "q")
        assert answer.status.code is Code.EXECUTOR_ERROR and "shard 1 is broken" in answer.status.description


@pytest.mark.feature("SC-02", "SC-03", "SC-04", "SC-06")
async def test_shards_share_an_index_and_all_answer_a_search(settings: BrokerSettings, flow_name: str) -> None:
    Shard.held.clear()
    async with running(settings, Graph(flow_name, (Node("s", shards=3),)), {}) as flow:
        for shard in range(3):
            flow.start_worker("s", Shard, shard=shard)
        await flow.ready()
        await asyncio.gather(*(ask(flow, "/index", f"d{n}") for n in range(60)))
        assert sorted(text for held in Shard.held.values() for text in held) == sorted(f"d{n}" for n in range(60))
        answers = await asyncio.gather(*(ask(flow, "/search", "a", "b") for _ in range(30)))
        for answer in answers:
            found = json.loads(bytes(answer.body))
            assert [[match["shard"] for match in doc["matches"]] for doc in found] == [[0, 1, 2], [0, 1, 2]]
        await no_parts_left(flow)


@pytest.mark.feature("FL-21")
async def test_a_floating_executor_gets_a_copy_and_answers_nobody(settings: BrokerSettings, flow_name: str) -> None:
    Shard.held.clear()
    graph = Graph(flow_name, (Node("foo"), Node("aside", needs=("foo",), floating=True)))

    class Aside(Executor):
        seen: list[str] = []

        @requests
        async def note(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
            await asyncio.sleep(0.3)
            Aside.seen.extend(doc.text for doc in docs)

    async with running(settings, graph, {"foo": Says, "aside": Aside}) as flow:
        started = time.monotonic()
        assert texts(await ask(flow, "/x")) == ["foo was here and got 0 document"]
        assert time.monotonic() - started < 0.25
    assert Aside.seen == ["foo was here and got 0 document"]


async def test_a_late_answer_names_the_branch_that_is_missing(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, DIAMOND), {"foo": Says, "bar": Says}) as flow:
        flow.start_worker("baz", Says, uses_with={"pause_s": 1.0})
        flow.start_worker("end", "")
        await flow.ready()
        started = time.time()
        answer = await ask(flow, "/x", deadline=started + 0.4)
        assert time.time() - started < 0.6
        assert answer.status.code is Code.DEADLINE_EXCEEDED
        assert "'end' still waits for branch baz" in answer.status.description


async def test_a_late_answer_names_the_executor_where_the_request_is(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("foo"), Node("slow", needs=("foo",)))), {"foo": Says}) as flow:
        flow.start_worker("slow", Says, uses_with={"pause_s": 1.0})
        await flow.ready()
        answer = await ask(flow, "/x", deadline=time.time() + 0.3)
        assert "it is at executor 'slow'" in answer.status.description


async def test_what_may_be_answered_in_part_is_not_held_until_its_deadline_once_it_is_answered(
    settings: BrokerSettings, flow_name: str
) -> None:
    nodes = (Node("foo"), Node("end", needs=("foo",), allow_partial=True))
    async with running(settings, Graph(flow_name, nodes), {"foo": "", "end": ""}) as flow:
        for _ in range(20):
            await ask(flow, "/x", "q", deadline=time.time() + 60)
        assert not [each for each in gc.get_objects() if isinstance(each, Waiting)]


async def test_a_partial_answer_is_given_when_allowed_and_says_what_it_lacks(settings: BrokerSettings, flow_name: str) -> None:
    nodes = (*DIAMOND[:3], Node("end", needs=("bar", "baz"), allow_partial=True))
    async with running(settings, Graph(flow_name, nodes), {"foo": Says, "bar": Says}) as flow:
        flow.start_worker("baz", Says, uses_with={"pause_s": 1.5})
        flow.start_worker("end", "")
        await flow.ready()
        answer = await ask(flow, "/x", deadline=time.time() + 0.8)
        assert texts(answer) == ["foo was here and got 0 document", "bar was here and got 1 document"]
        assert answer.results == {"__missing__": {"end": ["baz"]}}
