"""Generators anywhere in a flow: in order, each document once, as they are yielded, ended with their client."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from docarray import DocList

from streamflow.broker import codec, subjects
from streamflow.broker.credit import WINDOW_PARTS
from streamflow.broker.envelope import COLUMNS, JSON, PROTOBUF, Envelope, encode
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node, Polling
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call
from streamflow.workers import streaming
from streamflow.workers.stream import Stream
from tests.running import Running, running
from tests.waiting import eventually

from .streams import BOTH, Join, Plus, Silent, Talker, Token, call, chain, docs_of, listen, one, queues_empty, take

pytestmark = [pytest.mark.feature("EX-14"), pytest.mark.usefixtures("silent_talker")]


class Remembering(Talker):
    def snapshot(self, snapshot_dir: str) -> None: ...

    def restore(self, snapshot_dir: str) -> None: ...


@BOTH
async def test_a_stream_of_the_latest_state_waits_for_its_reader(settings: BrokerSettings, flow_name: str, endpoint: str) -> None:
    graph = Graph(flow_name, (Node("talker", stateful=True),))
    async with running(settings, graph, {"talker": Remembering}) as flow:
        heard = await listen(flow, replace(call(endpoint, "x" * 1000, n=2000), latest=True))
        assert heard.numbers == list(range(2000))
        assert Talker.closed.is_set()


@BOTH
@pytest.mark.parametrize("names", [("talk",), ("talk", "a", "b"), ("a", "talk", "b"), ("a", "b", "talk")])
async def test_a_generator_streams_from_any_place_in_a_flow(
    settings: BrokerSettings, flow_name: str, endpoint: str, names: tuple[str, ...]
) -> None:
    executors = {name: Talker if name == "talk" else Plus for name in names}
    async with running(settings, chain(flow_name, *names), executors) as flow:
        for n in (0, 1, 3, 200):
            heard = await listen(flow, call(endpoint, n=n))
            assert heard.code is Code.OK and heard.words == [("w" + "+" * (len(names) - 1), number) for number in range(n)]
            assert all([hop.executor for hop in part.trail] == list(names) for part in heard.parts)
        await queues_empty(flow)
        assert flow.dispatcher.open_requests == 0


@BOTH
@pytest.mark.parametrize("leaves", [False, True])
async def test_nothing_of_a_stream_waits_for_a_collection_of_garbage(
    settings: BrokerSettings, flow_name: str, endpoint: str, leaves: bool
) -> None:
    async with running(settings, one(flow_name), {"talk": Talker}) as flow:
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                async with aclosing(flow.dispatcher.stream(call(endpoint, n=100_000 if leaves else 5))) as parts:
                    await take(parts, 2 if leaves else 6)
            await eventually(lambda: not [each for each in gc.get_objects() if isinstance(each, Stream)], what="all of them are gone")
        finally:
            gc.enable()


@BOTH
async def test_the_same_endpoint_gives_all_at_once_to_a_normal_request(settings: BrokerSettings, flow_name: str, endpoint: str) -> None:
    async with running(settings, chain(flow_name, "talk", "plus"), {"talk": Talker, "plus": Plus}) as flow:
        answer = await asyncio.wait_for(flow.dispatcher.send(call(endpoint, n=3)), 10)
        assert answer.position == -1 and answer.final
        assert [doc.number for doc in codec.decode(answer.body, JSON, Token).docs] == [0, 1, 2]


@pytest.mark.parametrize("accept", [JSON, PROTOBUF, COLUMNS])
@pytest.mark.parametrize("endpoint", ["/plain", "/sync", "/nobody"])
async def test_every_form_comes_as_one_document_a_part(settings: BrokerSettings, flow_name: str, endpoint: str, accept: str) -> None:
    """`/plain` is no generator, `/nobody` is bound nowhere in this flow: their documents are parts too."""
    async with running(settings, chain(flow_name, "talk", "silent"), {"talk": Talker, "silent": Silent}) as flow:
        docs = DocList[Token]([Token(text="w"), Token(text="x")])
        request = Call(endpoint, codec.encode(docs, COLUMNS), COLUMNS, accept, parameters={"n": 2})
        heard = await listen(flow, request)
        expected = [("w", -1), ("x", -1)] if endpoint == "/nobody" else [("w", 0), ("w", 1), ("x", 0), ("x", 1)]
        found = [codec.decode(part.body, accept, Token).docs for part in heard.parts[:-1]]
        assert [(doc.text, doc.number) for docs in found for doc in docs] == expected
        assert all(len(docs) == 1 for docs in found)


async def test_a_later_executor_may_give_none_or_several_documents_for_one(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name, "talk", "plus", "last"), {"talk": Talker, "plus": Plus, "last": Silent}) as flow:
        assert (await listen(flow, call("/sync", n=5, drop=True))).numbers == [0, 2, 4]
        doubled = await listen(flow, call("/sync", n=40, double=True))
        assert doubled.words == [(f"w{mark}", number) for number in range(40) for mark in "+-"]


async def test_a_later_executor_is_called_once_for_each_document(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name, "talk", "plus"), {"talk": Talker, "plus": Plus}) as flow:
        before = Plus.calls
        await listen(flow, call("/sync", n=7))
        assert Plus.calls - before == 7, "the end of a stream is no request"


async def test_a_second_generator_is_collected_for_each_document_of_the_first(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name, "talk", "again"), {"talk": Talker, "again": Talker}) as flow:
        heard = await listen(flow, call("/sync", n=2, again__n=3))
        assert heard.words == [("w", 0), ("w", 1), ("w", 2)] * 2


async def test_branches_that_share_a_stream_meet_document_by_document(settings: BrokerSettings, flow_name: str) -> None:
    nodes = (Node("talk"), Node("left", needs=("talk",)), Node("right", needs=("talk",)), Node("join", needs=("left", "right")))
    executors = {"talk": Talker, "left": Plus, "right": Plus, "join": Join}
    async with running(settings, Graph(flow_name, nodes), executors) as flow:
        heard = await listen(flow, call("/sync", n=100))
        assert heard.words == [("w+|1", number) for number in range(100)]
    async with running(settings, Graph(f"{flow_name}b", nodes[:3]), {"talk": Talker, "left": Plus, "right": Plus}) as flow:
        assert (await listen(flow, call("/async", n=100))).words == [("w+", number) for number in range(100)]


async def test_a_generator_beside_another_branch_is_collected(settings: BrokerSettings, flow_name: str) -> None:
    nodes = (Node("talk"), Node("beside"), Node("join", needs=("talk", "beside")))
    async with running(settings, Graph(flow_name, nodes), {"talk": Talker, "beside": Plus, "join": Join}) as flow:
        heard = await listen(flow, call("/sync", n=3))
        assert sorted(heard.words) == sorted([("w|4", 0), ("w|4", 1), ("w|4", 2), ("w+|4", -1)])


async def test_a_generator_in_shards_that_all_answer_is_collected(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("talk", shards=2, polling={"*": Polling.ALL}),))
    async with running(settings, graph, {}) as flow:
        for shard in range(2):
            flow.start_worker("talk", Talker, shard=shard)
        await flow.ready()
        assert (await listen(flow, call("/sync", n=3))).numbers == [0, 1, 2, 0, 1, 2]


@pytest.mark.feature("FL-21")
async def test_floating_executors_get_the_stream_and_answer_nobody(settings: BrokerSettings, flow_name: str) -> None:
    nodes = (Node("talk"), Node("aside", needs=("talk",), floating=True))
    async with running(settings, Graph(flow_name, nodes), {"talk": Talker, "aside": Talker}) as flow:
        heard = await listen(flow, call("/sync", n=4, accept=PROTOBUF))
        assert len(heard.parts) == 5
        await queues_empty(flow)
        await eventually(lambda: len(Talker.log) == 5)  # the stream itself, and the floating copy's call for each document


@BOTH
@pytest.mark.parametrize("names", [("talk",), ("talk", "a", "b")])
async def test_a_document_is_forwarded_while_the_generator_blocks(
    settings: BrokerSettings, flow_name: str, endpoint: str, names: tuple[str, ...]
) -> None:
    """In one process with the gateway a blocked loop would block its reader too: workers of their own are in tests/e2e."""
    executors = {name: Talker if name == "talk" else Plus for name in names}
    async with running(settings, chain(flow_name, *names), executors) as flow:
        took = []
        pause_s = 0.3 if endpoint == "/sync" else 0.0
        async with aclosing(flow.dispatcher.stream(call(endpoint, n=3, pause_s=pause_s))) as parts:
            async for part in parts:
                took += [time.time() - doc["made"] for doc in docs_of(part)]
        assert len(took) == 3 and max(took) < 0.25


@BOTH
@pytest.mark.parametrize("names", [("talk",), ("talk", "a", "b")])
async def test_an_exception_in_the_middle_comes_after_what_was_yielded(
    settings: BrokerSettings, flow_name: str, endpoint: str, names: tuple[str, ...]
) -> None:
    executors = {name: Talker if name == "talk" else Plus for name in names}
    async with running(settings, chain(flow_name, *names), executors) as flow:
        for bad_at in (0, 1, 50):
            heard = await listen(flow, call(endpoint, n=100, bad_at=bad_at))
            assert heard.numbers == list(range(bad_at))
            assert heard.code is Code.EXECUTOR_ERROR and f"no word {bad_at}" in heard.parts[-1].status.description
        await queues_empty(flow)


async def test_a_failure_of_a_later_executor_ends_the_stream_and_its_generator(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name, "talk", "a", "b"), {"talk": Talker, "a": Plus, "b": Plus}) as flow:
        heard = await listen(flow, call("/async", n=100_000, fail_at=30))
        assert heard.numbers == list(range(30)) and heard.code is Code.EXECUTOR_ERROR
        await eventually(Talker.closed.is_set, 2.0)
        assert Talker.yielded <= 30 + WINDOW_PARTS + 1
        await queues_empty(flow)


async def test_wrong_input_is_refused_as_usual(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, one(flow_name), {"talk": Talker}) as flow:
        heard = await listen(flow, Call("/sync", b'{"data": [{"number": "many"}]}', JSON))
        assert heard.code is Code.INVALID_ARGUMENT and len(heard.parts) == 1


@BOTH
async def test_a_deadline_in_the_middle_ends_the_stream(settings: BrokerSettings, flow_name: str, endpoint: str) -> None:
    async with running(settings, one(flow_name), {"talk": Talker}) as flow:
        began = time.time()
        wait = {"pause_s": 0.05} if endpoint == "/sync" else {"hang_at": 5}
        heard = await listen(flow, call(endpoint, n=1000, deadline=began + 0.5, **wait))
        assert heard.code is Code.DEADLINE_EXCEEDED and 0.5 <= time.time() - began < 2.0
        assert heard.numbers == list(range(len(heard.numbers))) and 1 <= len(heard.numbers) <= 15
        await eventually(Talker.closed.is_set, 2.0)
        await queues_empty(flow)


@pytest.mark.parametrize(
    ("endpoint", "options", "said"),
    [("/sync", {"pause_s": 0.05}, ["sync over"]), ("/async", {"hang_at": 3}, ["cancelled", "async over"]), ("/async", {}, ["async over"])],
)
@pytest.mark.parametrize("names", [("talk",), ("talk", "a")])
async def test_leaving_the_iterator_ends_the_generator_within_a_second(
    settings: BrokerSettings, flow_name: str, endpoint: str, options: dict[str, Any], said: list[str], names: tuple[str, ...]
) -> None:
    executors = {name: Talker if name == "talk" else Plus for name in names}
    async with running(settings, chain(flow_name, *names), executors) as flow:
        async with aclosing(flow.dispatcher.stream(call(endpoint, n=100_000, **options))) as parts:
            assert [part.position for part in await take(parts, 3)] == [0, 1, 2]
        await eventually(Talker.closed.is_set, 1.0)
        ended = list(Talker.log)  # one that waits for its reader is closed at its `yield`, without a CancelledError
        assert ended == said
        await queues_empty(flow)
        assert flow.dispatcher.open_requests == 0
        assert (await listen(flow, call(endpoint, n=2))).numbers == [0, 1]


@pytest.mark.parametrize(("give_up_s", "deadline_s"), [(0.3, 0.0), (60.0, 0.5)])
async def test_a_stream_whose_gateway_is_gone_is_given_up(
    settings: BrokerSettings, flow_name: str, give_up_s: float, deadline_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PROBE_S", 0.05)
    monkeypatch.setattr(streaming, "GIVE_UP_S", give_up_s)
    async with running(settings, one(flow_name), {"talk": Talker}) as flow:
        nobody = subjects.reply(flow_name, "nobody", "r1")
        request = Envelope("r1", flow_name, flow.graph.version, "/sync", hop="talk", stream=True, reply=nobody, parameters={"n": 1000})
        body = codec.encode([Token()], COLUMNS)
        deadline = time.time() + deadline_s if deadline_s else 0.0
        message = encode(request._replace(body=body, content_type=COLUMNS, deadline=deadline))
        await flow.bus.store_wait(subjects.work(flow_name, "talk", "now", "r1"), message, "r1")
        await eventually(Talker.closed.is_set)
        assert Talker.yielded == WINDOW_PARTS
        await queues_empty(flow)


async def many(flow: Running, clients: int, tokens: int) -> None:
    endpoints = ("/sync", "/async")
    heard = await asyncio.gather(*(listen(flow, call(endpoints[n % len(endpoints)], f"c{n}", n=tokens), 120) for n in range(clients)))
    for n, each in enumerate(heard):
        assert each.words == [(f"c{n}++", number) for number in range(tokens)]


async def test_many_streams_at_once_are_in_order_whole_and_unmixed(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name, "talk", "a", "b"), {"talk": Talker, "a": Plus, "b": Plus}) as flow:
        flow.start_worker("talk", Talker, replica=1)
        flow.start_worker("a", Plus, replica=1)
        flow.start_worker("b", Plus, replica=1)
        await many(flow, 20, 200)
        await queues_empty(flow)
        assert flow.dispatcher.open_requests == 0
