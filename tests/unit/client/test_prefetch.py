"""How far a post() reads ahead, in bytes: of its input, and of answers that nobody has taken yet."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import AsyncIterator, Iterator

import pytest
from docarray import DocList
from hypothesis import given
from hypothesis import strategies as st

from streamflow.client import AsyncClient, Client
from streamflow.client.prefetch import LEAST, Prefetch
from streamflow.client.results import DataRequest, Header, Parts
from streamflow.client.transport import Outgoing
from tests.reading import TEXT, Reading
from tests.unit.client.backend import Item
from tests.unit.client.grpc_servers import GrpcServer
from tests.unit.client.servers import Running, protocol, serving
from tests.waiting import eventually

pytestmark = pytest.mark.feature("CL-11", "ER-09")
MOST_BYTES = 600_000


@pytest.fixture
async def talker(kind: str, server: Running) -> AsyncIterator[AsyncClient]:
    async with Client("127.0.0.1", server.port, protocol(kind), asyncio=True, prefetch_bytes=MOST_BYTES) as made:
        yield made


async def test_input_is_read_while_what_is_under_way_takes_less_than_the_limit(talker: AsyncClient) -> None:
    reading = Reading(Item, 60)
    await reading.take(talker.post("/echo", reading.documents, request_size=1, return_type=DocList[Item]))
    assert MOST_BYTES / 2 < reading.most_ahead < MOST_BYTES + len(TEXT)


async def test_four_requests_larger_than_the_limit_still_overlap(talker: AsyncClient, server: Running) -> None:
    text = "x" * (MOST_BYTES + 1)
    post = asyncio.create_task(_collect(talker.post("/hold", (Item(text=text) for _ in range(8)), request_size=1)))
    await eventually(lambda: server.backend.running == 4)
    server.loop.call_soon_threadsafe(server.backend.released.set)
    assert await post == 8
    assert server.backend.peak == 4


@pytest.mark.parametrize("in_order", [False, True])
async def test_small_questions_with_large_answers_are_held_back_too(talker: AsyncClient, in_order: bool) -> None:
    """A slow first answer in order, or a slow caller, would otherwise let the answers to all 500 pile up: 100 MB."""
    size, pulled, taken, most = 200_000, 0, 0, 0

    async def documents() -> AsyncIterator[Item]:
        nonlocal pulled, most
        for number in itertools.takewhile(lambda _: taken < 20, range(500)):
            most = max(most, pulled - taken)
            pulled += 1
            yield Item(number=number)

    async for docs in talker.post(
        "/grow", documents, parameters={"size": size}, request_size=1, results_in_order=in_order, return_type=DocList[Item]
    ):
        await asyncio.sleep(0.005)
        assert not in_order or docs[0].number == taken
        taken += 1
    assert taken == pulled
    assert most <= MOST_BYTES // (64 << 10) + 1  # as many as may be open before the first answer tells how large they are


async def test_requests_under_way_hold_no_documents(talker: AsyncClient, server: Running) -> None:
    made: list[weakref.ref[Item]] = []

    def documents() -> Iterator[Item]:
        for number in range(6):
            doc = Item(number=number)
            made.append(weakref.ref(doc))
            yield doc

    post = asyncio.create_task(_collect(talker.post("/hold", documents, request_size=2, max_attempts=3)))
    await eventually(lambda: server.backend.running == 3)
    gc.collect()
    assert [ref() for ref in made] == [None] * 6
    server.loop.call_soon_threadsafe(server.backend.released.set)
    assert await post == 3


@pytest.mark.parametrize("kind", ["grpc", "jina", "websocket"])
@pytest.mark.parametrize(("attempts", "kept"), [(1, False), (2, True)])
async def test_what_was_sent_is_kept_for_another_attempt_only(talker: AsyncClient, server: Running, attempts: int, kept: bool) -> None:
    post = asyncio.create_task(_collect(talker.post("/hold", [Item(), Item()], request_size=1, max_attempts=attempts)))
    await eventually(lambda: server.backend.running == 2)
    under_way = [found for found in gc.get_objects() if isinstance(found, Outgoing) and _is_open(found)]
    assert [bool(request.body) for request in under_way] == [kept, kept]
    server.loop.call_soon_threadsafe(server.backend.released.set)
    assert await post == 2


async def test_a_request_that_was_sent_in_one_form_can_be_sent_again_in_another() -> None:
    """A gateway of the other kind takes over while a request is under way."""
    with serving("grpc") as server:
        async with Client("127.0.0.1", server.port, asyncio=True) as client:
            answers = client.post("/hold", [Item(text="a"), Item(text="b")], request_size=1, max_attempts=50, initial_backoff=0.05)
            post = asyncio.create_task(_collect(answers))
            await eventually(lambda: server.backend.running == 2)
            await asyncio.to_thread(server.stop)
            server.loop.call_soon_threadsafe(server.backend.released.set)
            await asyncio.to_thread(server.run, _start_jina(server))
            assert await post == 2
            assert sorted(asked.docs[0].text for asked in server.backend.asked[2:]) == ["a", "b"]


async def _start_jina(server: Running) -> None:
    server.server = GrpcServer(server.backend, own_too=False)
    await server.server.start(server.port)


def _is_open(request: Outgoing) -> bool:
    return hasattr(request, "answer") and not request.answer.done()


async def _collect(answers: AsyncIterator[object]) -> int:
    return len([answer async for answer in answers])


@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 300_000), st.booleans()), max_size=60), st.integers(1, 20))
async def test_there_is_room_only_below_both_limits_and_all_of_it_comes_back(steps: list[tuple[int, int, bool]], requests: int) -> None:
    prefetch = Prefetch(requests, MOST_BYTES)
    waiting: list[tuple[Outgoing, int]] = []
    for body, answer, keeps_up in steps:
        while len(waiting) >= min(requests, LEAST) and (len(waiting) >= requests or prefetch.held_bytes >= MOST_BYTES):
            assert not await _has_room(prefetch)
            _answer(prefetch, *waiting.pop(0))
        async with asyncio.timeout(1):
            await prefetch.room()
        request = Outgoing([], body=b"x" * body)
        prefetch.sent(request)
        assert prefetch.held_bytes >= body
        waiting.append((request, answer))
        if keeps_up:
            _answer(prefetch, *waiting.pop(0))
    for pair in waiting:
        _answer(prefetch, *pair)
    assert prefetch.held_bytes == 0


async def _has_room(prefetch: Prefetch) -> bool:
    try:
        async with asyncio.timeout(0):
            await prefetch.room()
    except TimeoutError:
        return False
    return True


def _answer(prefetch: Prefetch, request: Outgoing, size: int) -> None:
    response = DataRequest(Parts(Header(request.request_id), b"x" * size))
    request.body = b""
    prefetch.answered(request, response)
    assert request.held_bytes == size
    prefetch.settled(request, response)
    prefetch.taken(response)
