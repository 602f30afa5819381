"""Generators anywhere in a flow: in order, each document once, held back by a slow reader, ended with their client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from streamflow.broker import codec, credit, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.credit import LEAST_BYTES, MOST_BYTES, WINDOW_PARTS
from streamflow.broker.envelope import COLUMNS, JSON, PROTOBUF, Envelope, decode, encode
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node, Polling
from streamflow.broker.pull import Delivery, Pull
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call, Dispatcher
from streamflow.workers import streaming
from streamflow.workers.executor import Executor, requests
from streamflow.workers.keepalive import Keepalive
from streamflow.workers.stream import QUIET_LOOKS, Stream
from streamflow.workers.suspects import Suspects
from tests.chaos.proxy import Proxy
from tests.running import Running, running
from tests.waiting import eventually

from .streams import Heard, Join, Plus, Talker, Token, call, listen, queue_lengths, queues_empty, take

pytestmark = pytest.mark.feature("EX-14")

BOTH = pytest.mark.parametrize("endpoint", ["/sync", "/async"])


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    Talker.forget()
    yield


def chain(flow: str, *names: str, **options: Any) -> Graph:
    """A flow in which each executor follows the one before."""
    nodes = [Node(name, needs=names[at - 1 : at] if at else ("gateway",), **options) for at, name in enumerate(names)]
    return Graph(flow, tuple(nodes))


def one(flow: str, **options: Any) -> Graph:
    return chain(flow, "talk", **options)


# what arrives


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


class Silent(Executor):
    @requests(on="/elsewhere")
    def nothing(self, docs: DocList[Token], **kwargs: Any) -> None: ...


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


# time


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
                took += [time.time() - doc["made"] for doc in _docs(part)]
        assert len(took) == 3 and max(took) < 0.25


def _docs(part: Envelope) -> list[dict[str, Any]]:
    heard = Heard()
    heard.parts = [part]
    return heard.docs


# ends


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


# readers that are slow


@BOTH
@pytest.mark.parametrize("names", [("talk",), ("talk", "a", "b")])
async def test_a_slow_reader_holds_its_generator_back_and_nobody_else(
    settings: BrokerSettings, flow_name: str, endpoint: str, names: tuple[str, ...]
) -> None:
    executors = {name: Talker if name == "talk" else Plus for name in names}
    async with running(settings, chain(flow_name, *names), executors, concurrency=2) as flow:
        streams = [flow.dispatcher.stream(call(endpoint, n=1000)) for _ in range(5)]
        for parts in streams:
            assert (await take(parts, 1))[0].position == 0
        await eventually(lambda: Talker.yielded == 5 * WINDOW_PARTS)
        began = time.monotonic()
        assert (await listen(flow, call(endpoint, n=10))).numbers == list(range(10))
        assert time.monotonic() - began < 3.0
        assert Talker.yielded == 5 * WINDOW_PARTS + 10, "a generator went on although its reader did not"
        rest = [part.position async for part in streams[0]]
        assert rest == list(range(1, 1001))
        for parts in streams[1:]:
            await parts.aclose()
        await eventually(lambda: len(Talker.log) - Talker.log.count("cancelled") == 6)
        await queues_empty(flow)


class Image(BaseDoc):
    pixels: NdArray


class Camera(Executor):
    taken = 0

    @requests(on="/film")
    def film(self, doc: Image, parameters: dict[str, Any], **kwargs: Any) -> Image:  # type: ignore[misc]
        for number in range(int(parameters["n"])):
            Camera.taken += 1
            yield Image(pixels=np.full(int(parameters.get(f"bytes{number}", parameters["bytes"])), number, dtype=np.uint8))


@pytest.mark.parametrize("size", [300_000, 3_000_000])
@pytest.mark.parametrize("names", [("talk",), ("talk", "a")])
async def test_large_documents_fill_the_window_by_their_bytes(
    settings: BrokerSettings, flow_name: str, size: int, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PROBE_S", 60.0)  # the test's time is up before chance helps
    executors = {name: Camera if name == "talk" else Silent for name in names}
    Camera.taken = 0
    async with running(settings, chain(flow_name, *names), executors) as flow:
        body = b'{"data": [{"pixels": [0]}], "parameters": {"n": 60, "bytes": %d}}' % size
        parts = flow.dispatcher.stream(Call("/film", body, JSON, COLUMNS))
        first = await take(parts, 1)
        await eventually(lambda: Camera.taken)
        await listen(flow, Call("/film", b'{"data": [{"pixels": [0]}], "parameters": {"n": 1, "bytes": 1}}', JSON, COLUMNS))
        assert Camera.taken <= MOST_BYTES // size + 2, "a generator went on although its window was full"
        async with asyncio.timeout(30):
            numbers = [int(codec.decode(part.body, COLUMNS, Image).docs[0].pixels[0]) async for part in parts if part.body]
        assert numbers == list(range(1, 60)) and first[0].position == 0
        await queues_empty(flow)


@pytest.mark.parametrize("names", [("talk",), ("talk", "a")])
async def test_a_document_above_the_limit_ends_the_stream_in_its_place(
    settings: BrokerSettings, flow_name: str, names: tuple[str, ...]
) -> None:
    executors = {name: Camera if name == "talk" else Silent for name in names}
    small = settings.model_copy(update={"max_request_bytes": 1_000_000})
    async with running(small, chain(flow_name, *names), executors) as flow:
        body = b'{"data": [{"pixels": [0]}], "parameters": {"n": 1000, "bytes": 10, "bytes7": 2000000}}'
        heard = Heard()
        async for part in flow.dispatcher.stream(Call("/film", body, JSON, COLUMNS)):
            heard.parts.append(part)
        heard.check_form()
        assert len(heard.parts) == 8 and heard.code is Code.TOO_LARGE
        await queues_empty(flow)


async def test_the_more_streams_there_are_the_less_each_may_be_ahead(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credit, "ALL_BYTES", 4 * LEAST_BYTES)
    body = b'{"data": [{"pixels": [0]}], "parameters": {"n": 60, "bytes": %d}}' % (LEAST_BYTES // 4)
    Camera.taken = 0
    async with running(settings, one(flow_name), {"talk": Camera}) as flow:
        streams = [flow.dispatcher.stream(Call("/film", body, JSON, COLUMNS)) for _ in range(5)]
        await take(streams[0], 1)
        await eventually(lambda: Camera.taken >= 15, what="a stream that is alone has all the room")
        for parts in streams[1:4]:
            await take(parts, 1)
        await eventually(lambda: Camera.taken >= 15 + 3 * 4)
        before = Camera.taken
        await take(streams[4], 1)
        await eventually(lambda: Camera.taken >= before + 4)
        await asyncio.sleep(0.1)  # long enough for it to ask, and to go on
        assert Camera.taken <= before + 5
        for parts in streams:
            await parts.aclose()


async def test_a_stream_without_news_is_asked_about_less_and_less_often_unless_nobody_answers(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PROBE_S", 0.02)
    monkeypatch.setattr(streaming, "TURNS", 1)
    async with running(settings, one(flow_name), {"talk": Talker}) as flow:
        probed, asked = flow.dispatcher._probed, []
        looks = counted_looks(monkeypatch)

        def count(probe: Envelope) -> None:
            asked.append(probe)
            probed(probe)

        monkeypatch.setattr(flow.dispatcher, "_probed", count)
        parts = flow.dispatcher.stream(call("/sync", n=1000))
        await take(parts, 1)
        await eventually(lambda: Talker.yielded == WINDOW_PARTS)
        began, had = len(looks), len(asked)
        await eventually(lambda: len(looks) >= began + 64)
        assert 64 // QUIET_LOOKS - 1 <= len(asked) - had <= 64 // QUIET_LOOKS + 5
        monkeypatch.setattr(flow.dispatcher, "_report", lambda source, payload: None)
        await eventually(lambda: len(asked) > had + 64 // QUIET_LOOKS + 5, what="a question without an answer is asked again")
        began, had = len(looks), len(asked)
        await eventually(lambda: len(looks) >= began + 16)
        assert len(asked) - had >= 12
        await parts.aclose()


def counted_looks(monkeypatch: pytest.MonkeyPatch) -> list[Stream]:
    """Filled with each look at a stream."""
    looks: list[Stream] = []
    is_due = Stream.is_due

    def look(stream: Stream) -> bool:
        looks.append(stream)
        return is_due(stream)

    monkeypatch.setattr(Stream, "is_due", look)
    return looks


async def test_lost_reports_cost_a_moment_and_not_the_stream(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PROBE_S", 0.05)
    async with running(settings, one(flow_name), {"talk": Talker}) as flow:
        tell, lost = flow.dispatcher._report, []

        def tell_seldom(source: str, payload: bytes) -> None:
            lost.append(payload)
            if len(lost) % 3 == 0:
                tell(source, payload)

        for waiting in ("/sync", "/async"):
            monkeypatch.setattr(flow.dispatcher, "_report", tell_seldom)
            assert (await listen(flow, call(waiting, n=500))).numbers == list(range(500))
        assert len(lost) > 10


# deaths


@pytest.mark.parametrize("bad_at", [None, 8])
async def test_a_request_is_settled_when_the_broker_has_all_its_documents(
    settings: BrokerSettings, flow_name: str, bad_at: int | None
) -> None:
    small = settings.model_copy(update={"max_queue_messages": 3})
    async with running(small, chain(flow_name, "talk", "a"), {}) as flow:
        flow.dispatcher.catalog.absent = lambda longer_than_s: set()  # type: ignore[method-assign]
        flow.start_worker("talk", Talker)
        reading = asyncio.create_task(listen(flow, call("/sync", n=10, bad_at=bad_at)))
        await eventually(Talker.closed.is_set)
        while (lengths := await queue_lengths(flow))["a"] < 3:
            await asyncio.sleep(0.01)
        assert lengths == {"talk": 1, "a": 3}
        flow.start_worker("a", Plus)
        heard = await reading
        assert heard.numbers == list(range(bad_at or 10)) and heard.code is (Code.EXECUTOR_ERROR if bad_at else Code.OK)
        await queues_empty(flow)


async def test_another_attempt_goes_on_where_the_first_was_and_never_mixes(settings: BrokerSettings, flow_name: str) -> None:
    graph = one(flow_name, ack_wait_s=0.3)
    async with running(settings, graph, {}) as flow:
        flow.dispatcher.catalog.absent = lambda longer_than_s: set()  # type: ignore[method-assign]
        heard = Heard()

        async def read() -> None:
            async for part in flow.dispatcher.stream(call("/sync", n=10)):
                heard.parts.append(part)

        reading = asyncio.create_task(read())
        got: list[Delivery] = []
        pull = Pull(flow.bus, subjects.work_stream(flow_name, "talk"), "now", got.append)
        await pull.start()
        await eventually(lambda: got)
        await pull.stop()
        request = decode(got[0].payload)

        sent: list[Envelope] = []
        await flow.bus.listen(request.reply, lambda subject, reply, header, payload: sent.append(decode(payload)))

        def of_the_dead(position: int) -> None:
            part = request._replace(body=codec.encode([Token(text="dead", number=position)], JSON), content_type=JSON, source="dead.1")
            flow.bus.publish(request.reply, encode(part._replace(position=position, final=False)))

        for position in (1, 0, 2, 7, 2):
            of_the_dead(position)
        await eventually(lambda: len(heard.parts) == 3)
        flow.start_worker("talk", Talker)
        await eventually(lambda: len(heard.parts) > 3)
        for position in (5, 6, 9):
            of_the_dead(position)
        await asyncio.wait_for(reading, 10)
        heard.check_form()
        assert heard.words == [("dead", 0), ("dead", 1), ("dead", 2), *(("w2", number) for number in range(3, 10))]
        assert heard.parts[-1].attempt == 2
        assert min(part.position for part in sent if part.attempt == 2 and part.position >= 0) == 3, "sent again what had arrived"
        await queues_empty(flow)


async def test_a_stream_that_gets_further_is_not_what_kills_workers(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, one(flow_name), {}) as flow:
        suspects, stream = Suspects(flow.bus, flow_name, "talk"), Envelope("r1", flow_name)
        assert [await suspects.mark(stream) for _ in range(3)] == [1, 2, 3]
        for documents, starts in ((0, 4), (10, 2), (10, 3), (10, 4), (11, 2)):
            await suspects.advanced(stream, documents)
            assert await suspects.mark(stream) == starts
        await suspects.clear(stream)
        assert await suspects.mark(stream) == 1


@BOTH
async def test_a_worker_that_was_thought_dead_stops_and_leaves_the_request_to_the_other(
    settings: BrokerSettings, flow_name: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PROBE_S", 0.1)
    monkeypatch.setattr(Keepalive, "hold", lambda self, subject, deadline: None)
    graph = one(flow_name, ack_wait_s=0.5, max_deliver=50)
    async with running(settings, graph, {"talk": Talker}) as flow:
        parts = flow.dispatcher.stream(call(endpoint, n=200))
        first = await take(parts, 1)
        flow.start_worker("talk", Talker, replica=1)
        await eventually(Talker.closed.is_set)  # the first generator, told that it was replaced
        assert (await listen(flow, call(endpoint, n=1))).numbers == [0]
        while (left := (await queue_lengths(flow))["talk"]) > 1:
            await asyncio.sleep(0.01)
        assert left == 1, "the first worker settled what is the second one's"
        rest = [part async for part in parts]
        heard = Heard()
        heard.parts = [*first, *rest]
        heard.check_form()
        assert heard.numbers == list(range(200)) and heard.code is Code.OK
        await queues_empty(flow)


@BOTH
@pytest.mark.parametrize("names", [("talk",), ("talk", "a")])
async def test_a_stream_survives_the_death_of_its_broker(
    own_broker: EmbeddedBroker, flow_name: str, endpoint: str, names: tuple[str, ...]
) -> None:
    settings = BrokerSettings(broker_url=own_broker.url)
    executors = {name: Talker if name == "talk" else Plus for name in names}
    async with running(settings, chain(flow_name, *names), executors) as flow:
        numbers = []
        async with asyncio.timeout(30), aclosing(flow.dispatcher.stream(call(endpoint, n=300, pause_s=0.002))) as parts:
            async for part in parts:
                numbers += [doc["number"] for doc in _docs(part)]
                if part.position in (40, 150):
                    own_broker.kill()
                    await asyncio.sleep(0.1)
                    await asyncio.to_thread(own_broker.start)
        assert numbers == list(range(300)) and part.status.code is Code.OK
        await queues_empty(flow, 10)


@BOTH
async def test_parts_that_were_lost_with_the_gateways_connection_come_again(
    settings: BrokerSettings, flow_name: str, endpoint: str
) -> None:
    """The worker's own connection holds, so it knows of nothing; what it sent meanwhile is gone."""
    proxy = Proxy(settings.broker_url)
    await proxy.start()
    async with running(settings, chain(flow_name, "talk"), {"talk": Talker}) as flow:
        bus = await Bus.connect(BrokerSettings(broker_url=proxy.url), "behind the proxy")
        dispatcher = Dispatcher(bus, flow.graph)
        await dispatcher.start()
        numbers: list[int] = []
        async with asyncio.timeout(30), aclosing(dispatcher.stream(call(endpoint, n=100, pause_s=0.01))) as parts:
            async for part in parts:
                numbers += [doc["number"] for doc in _docs(part)]
                if part.position == 20:
                    proxy.fall_silent()
                    await asyncio.sleep(0.3)
                    proxy.cut()
        assert numbers == list(range(100)) and part.status.code is Code.OK
        await queues_empty(flow, 10)
        await dispatcher.close()
        await bus.close()
    await proxy.stop()


# many at once


async def many(flow: Running, clients: int, tokens: int, endpoints: tuple[str, ...] = ("/sync", "/async")) -> None:
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
