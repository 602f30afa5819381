"""`GatewayStreamer` before a real flow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from streamflow.broker.errors import Code, DeadlineExceeded, ExecutorError, InvalidInput, NotFound, Unavailable
from streamflow.broker.flow import Graph, Node
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.desk import Desk
from streamflow.gateway.dispatch import Dispatcher
from streamflow.gateways.streamer import GatewayStreamer
from streamflow.workers.executor import Executor, requests
from tests.running import Running, running
from tests.waiting import eventually

pytestmark = pytest.mark.feature("GW-32", "GW-33", "GW-34", "GW-35")


class Item(BaseDoc):
    number: int = 0
    trail: str = ""


Items = DocList[Item]


class Marks(Executor):
    open_door = threading.Event()
    entered = 0

    @requests
    def mark(self, docs: DocList[Item], parameters: dict[str, Any], **kwargs: Any) -> DocList[Item]:
        for doc in docs:
            doc.trail += f"{self.runtime_args.name}{parameters.get('sign', '')};"
        return docs

    @requests(on="/odd_fails")
    def odd_fails(self, docs: DocList[Item], **kwargs: Any) -> DocList[Item]:
        if any(doc.number % 2 for doc in docs):
            raise LookupError("odd")
        return docs

    @requests(on="/held")
    async def held(self, docs: DocList[Item], **kwargs: Any) -> DocList[Item]:
        Marks.entered += 1
        await asyncio.to_thread(Marks.open_door.wait, 10)
        return docs

    @requests(on="/count")
    async def count(self, doc: Item, **kwargs: Any) -> AsyncIterator[Item]:
        for number in range(doc.number):
            yield Item(number=number)
        if doc.trail:
            raise LookupError(doc.trail)


@pytest.fixture
async def flow(settings: BrokerSettings, flow_name: str) -> AsyncIterator[Running]:
    Marks.open_door.clear()
    Marks.entered = 0
    graph = Graph(flow_name, (Node("first"), Node("second", ("first",))))
    async with running(settings, graph, {"first": Marks, "second": Marks}) as flow:
        yield flow
        Marks.open_door.set()


@pytest.fixture
def streamer(flow: Running) -> GatewayStreamer:
    return GatewayStreamer(Desk(flow.dispatcher), flow.graph.names, prefetch=4)


def numbered(count: int) -> Iterator[Item]:
    return (Item(number=number) for number in range(count))


async def test_documents_pass_the_whole_flow_in_requests_of_a_size(streamer: GatewayStreamer) -> None:
    answers = [docs async for docs in streamer.stream_docs(numbered(25), 10, exec_endpoint="/", return_type=Items)]
    assert sorted(len(docs) for docs in answers) == [5, 10, 10]
    assert all(isinstance(docs, DocList) and docs.doc_type is Item for docs in answers)
    assert {doc.trail for docs in answers for doc in docs} == {"first;second;"}


async def test_answers_come_in_order_when_asked_to(streamer: GatewayStreamer) -> None:
    answers = streamer.stream_docs(numbered(40), 1, results_in_order=True, return_type=Items, parameters={"sign": "!"})
    assert [(docs[0].number, docs[0].trail) async for docs in answers] == [(number, "first!;second!;") for number in range(40)]


async def test_an_async_generator_is_read_no_further_ahead_than_the_window(streamer: GatewayStreamer) -> None:
    read = 0

    async def endless() -> AsyncIterator[Item]:
        nonlocal read
        while True:
            read += 1
            yield Item(number=read)

    async with aclosing(streamer.stream_docs(endless(), 1, exec_endpoint="/held")) as answers:
        waiting = asyncio.ensure_future(anext(answers))
        await eventually(lambda: Marks.entered >= 4)
        assert read <= 5
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_without_a_return_type_documents_take_every_field(streamer: GatewayStreamer) -> None:
    (docs,) = [docs async for docs in streamer.stream_docs([Item(number=7)])]
    assert (docs[0].number, docs[0].trail) == (7, "first;second;")


async def test_errors_come_beside_the_documents(streamer: GatewayStreamer) -> None:
    found = [each async for each in streamer.stream(numbered(4), 1, exec_endpoint="/odd_fails", results_in_order=True, return_type=Items)]
    assert [[doc.number for doc in docs] for docs, _ in found] == [[0], [], [2], []]
    errors = [error for _, error in found if error]
    assert [(error.name, type(error)) for error in errors] == [("LookupError", ExecutorError)] * 2
    assert isinstance(errors[0], ExecutorError) and errors[0].status.executor == "Marks"


async def test_a_failed_request_is_raised_where_no_errors_are_asked_for(streamer: GatewayStreamer) -> None:
    with pytest.raises(ExecutorError, match="LookupError"):
        async for _ in streamer.stream_docs([Item(number=1)], exec_endpoint="/odd_fails"):
            pass
    with pytest.raises(ExecutorError, match="LookupError"):
        await streamer.executor["second"].post([Item(number=1)], on="/odd_fails")


async def test_what_reading_the_documents_raises_is_raised(streamer: GatewayStreamer) -> None:
    def failing() -> Iterator[Item]:
        yield Item()
        raise OSError("the disk is gone")

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        async for docs in streamer.stream_docs(failing(), 1):
            found.append(docs)
    assert len(found) == 1
    with pytest.raises(InvalidInput, match="expected documents, got str"):
        await anext(streamer.stream_docs(["text"]))


async def test_a_late_answer_is_an_error_with_a_name(flow: Running, settings: BrokerSettings) -> None:
    hurried = Dispatcher(flow.bus, flow.graph, timeout_s=0.2)
    await hurried.start()
    streamer = GatewayStreamer(Desk(hurried), flow.graph.names)
    ((docs, error),) = [each async for each in streamer.stream([Item()], exec_endpoint="/held")]
    assert (len(docs), isinstance(error, DeadlineExceeded)) == (0, True)
    assert error is not None and error.code is Code.DEADLINE_EXCEEDED
    await hurried.close()


async def test_one_executor_is_asked_alone(streamer: GatewayStreamer) -> None:
    post = streamer.executor["second"].post
    docs = await post(Items(list(numbered(5))), request_size=2, return_type=Items)
    assert [(doc.number, doc.trail) for doc in docs] == [(number, "second;") for number in range(5)]
    assert (await post(Item(number=3), return_type=Item)).trail == "second;"
    assert list(streamer.executor) == ["first", "second"] and len(streamer.executor) == 2
    with pytest.raises(NotFound, match="no executor 'third' in this flow; known: first, second"):
        streamer.executor["third"]


async def test_two_executors_are_asked_at_the_same_time(streamer: GatewayStreamer) -> None:
    calls = [asyncio.ensure_future(streamer.executor[name].post([Item()], on="/held")) for name in ("first", "second")]
    await eventually(lambda: Marks.entered == 2, what="both executors work")
    Marks.open_door.set()
    assert [len(docs) for docs in await asyncio.gather(*calls)] == [1, 1]


async def test_a_stream_of_documents_comes_one_by_one(streamer: GatewayStreamer) -> None:
    first = streamer.executor["first"]
    assert [doc.number async for doc in first.stream_doc(Item(number=3), on="/count", return_type=Item)] == [0, 1, 2]
    found = [each async for each in streamer.stream_doc(Item(number=1, trail="over"), exec_endpoint="/count", target_executor="first")]
    assert [(doc and doc.number, error and error.name) for doc, error in found] == [(0, None), (None, "LookupError")]
    with pytest.raises(ExecutorError, match="over"):
        async for _ in first.stream_doc(Item(number=1, trail="over"), on="/count"):
            pass


async def test_a_whole_answer_can_be_had_and_sent_again(streamer: GatewayStreamer) -> None:
    (answer,) = [each async for each in streamer.stream_docs([Item(number=2)], return_results=True, return_type=Items, request_id="mine")]
    assert (answer.request_id, [route.executor for route in answer.routes]) == ("mine", ["first", "second"])
    again = await streamer.process_single_data(answer)
    assert again.docs[0].trail == "first;second;" * 2
    assert again.request_id == "mine"


async def test_readiness_is_that_of_the_flow(streamer: GatewayStreamer) -> None:
    assert streamer.readiness() == {"code": 0, "description": "", "exception": None}


def test_a_process_without_a_gateway_has_no_streamer() -> None:
    with pytest.raises(Unavailable, match="no gateway of one's own runs in this process"):
        GatewayStreamer.get_streamer()
