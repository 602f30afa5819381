"""The asynchronous client over every protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from docarray import DocList

from streamflow.broker.errors import ExecutorError
from streamflow.client import AsyncClient, Client, DataRequest
from tests.unit.client.backend import Item
from tests.unit.client.servers import Running, protocol
from tests.waiting import eventually

pytestmark = pytest.mark.feature("CL-08")


@pytest.fixture
async def talker(kind: str, server: Running) -> AsyncIterator[AsyncClient]:
    async with Client("127.0.0.1", server.port, protocol(kind), asyncio=True) as made:
        yield made


async def test_answers_of_an_async_generator_come_one_by_one(talker: AsyncClient) -> None:
    answered = asyncio.Event()

    async def documents() -> AsyncIterator[Item]:
        """Each document waits for the answer to the one before: nothing may read ahead or collect."""
        for number in range(10):
            yield Item(number=number)
            await answered.wait()
            answered.clear()

    found = []
    async for docs in talker.post("/echo", documents, request_size=1, return_type=DocList[Item]):
        assert isinstance(docs, DocList)
        found.extend(docs.number)
        answered.set()
    assert found == list(range(10))


async def test_responses_on_request_and_single_documents_bare(talker: AsyncClient) -> None:
    (response,) = [response async for response in talker.post("/echo", Item(text="a"), return_responses=True, return_type=Item)]
    assert isinstance(response, DataRequest)
    assert response.docs[0].text == "A"
    (doc,) = [doc async for doc in talker.post("/echo", Item(text="a"), return_type=Item)]
    assert doc.text == "A"


async def test_callbacks_may_be_coroutine_functions(talker: AsyncClient) -> None:
    seen: list[str] = []

    async def note(response: DataRequest) -> None:
        await asyncio.sleep(0)
        seen.append(response.docs[0].text)

    assert len([docs async for docs in talker.post("/echo", [Item(text="a"), Item(text="b")], request_size=1, on_done=note)]) == 2
    assert sorted(seen) == ["A", "B"]


async def test_an_executor_error_raises_unless_it_is_handled(talker: AsyncClient) -> None:
    with pytest.raises(ExecutorError):
        async for _ in talker.post("/fail", Item(text="bad")):
            pass
    seen: list[DataRequest] = []
    assert [docs async for docs in talker.post("/fail", Item(text="bad"), on_error=seen.append)] == []
    assert len(seen) == 1


async def test_concurrent_posts_share_the_client(talker: AsyncClient) -> None:
    async def one(number: int) -> list[int]:
        docs = [Item(number=number * 10 + index) for index in range(5)]
        return [
            doc.number
            async for found in talker.post("/echo", docs, request_size=2, results_in_order=True, return_type=DocList[Item])
            for doc in found
        ]

    assert await asyncio.gather(*map(one, range(8))) == [list(range(number * 10, number * 10 + 5)) for number in range(8)]


async def test_leaving_the_loop_cancels_what_is_open(talker: AsyncClient, server: Running) -> None:
    async def leave() -> None:
        docs = [Item(), *[Item() for _ in range(5)]]
        stream = talker.post("/hold", docs, request_size=1)
        async with asyncio.timeout(10):
            async for _ in stream:
                pass

    task = asyncio.create_task(leave())
    await eventually(lambda: server.backend.running == 6)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await eventually(lambda: server.backend.running == 0)
    assert server.backend.cancelled == 6


async def test_a_slow_consumer_holds_back_the_input(talker: AsyncClient, server: Running) -> None:
    pulled = 0

    async def documents() -> AsyncIterator[Item]:
        nonlocal pulled
        while pulled < 50:
            pulled += 1
            yield Item()

    taken = 0
    async for _ in talker.post("/echo", documents, request_size=1, prefetch=4):
        taken += 1
        for _ in range(20):
            await asyncio.sleep(0)
        assert pulled <= taken + 4
    assert taken == 50


@pytest.mark.feature("CL-16", "CL-17")
async def test_readiness_and_profiling_are_awaited(talker: AsyncClient) -> None:
    assert await talker.is_flow_ready() is True
    assert (await talker.profiling(show_table=False))["first"] == pytest.approx(1000)


def test_a_client_follows_from_one_event_loop_to_the_next(kind: str, server: Running) -> None:
    client = Client("127.0.0.1", server.port, protocol(kind), asyncio=True)

    async def ask() -> str:
        async for doc in client.post("/echo", Item(text="a"), return_type=Item):
            return str(doc.text)
        return ""

    assert asyncio.run(ask()) == "A"
    assert asyncio.run(ask()) == "A"
