"""Streams through a served flow of real processes: every protocol, the moment a document arrives, clients that leave, killed workers."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from contextlib import aclosing

import aiohttp
import grpc
import psutil
import pytest

from streamflow import Client
from streamflow.broker.errors import ExecutorError
from streamflow.client import RequestTimeout
from tests.waiting import eventually

from .checker import nothing_left, stream_states
from .executors.talkers import Word
from .programs import Programs, flow_file, until
from .streams import WAYS, Served, StreamFailed, executor, read, serve

SAYS = ("/say", "/tell")


@pytest.fixture(scope="module")
def flow(module_programs: Programs) -> Served:
    return serve(module_programs, "talking", executor("one", "Mark", mark="+"), executor("two", "Mark", mark="!"))


@pytest.mark.feature("EX-14", "CL-09", "GW-16", "PR-06")
@pytest.mark.parametrize("endpoint", SAYS)
@pytest.mark.parametrize("way", WAYS)
async def test_every_protocol_streams_through_three_executors(flow: Served, way: str, endpoint: str) -> None:
    for n in (0, 1, 300):
        found = await read(WAYS[way], flow, endpoint, "w", n=n)
        assert [(doc["text"], doc["number"]) for doc in found] == [("w+!", number) for number in range(n)]


@pytest.mark.feature("EX-14", "CL-09", "GW-16")
def test_t14_t15_a_hundred_documents_and_a_growing_sentence(programs: Programs) -> None:
    """What Jina's documentation shows (T-14, T-15), with our synchronous client over each protocol."""
    addresses = serve(programs, "shown").addresses
    for scheme, protocol in (("grpc", "grpc"), ("http", "http"), ("ws", "websocket")):
        with Client(host=f"{scheme}://{addresses[protocol]}") as client:
            found = [doc.text for doc in client.stream_doc("/hello", Word(text="hello world"), return_type=Word)]
            assert found == [f"hello world {number}" for number in range(100)]
            assert len(client.post("/hello", Word(text="all"), return_type=None)) == 100
    file = flow_file(programs.folder, "model", [executor("model", "Model")], ("grpc", "http", "websocket"))
    _, addresses = programs.flow(file)
    with Client(host=f"http://{addresses['http']}") as client:
        said = list(client.stream_doc("/stream", Word(text="prompt"), parameters={"max_tokens": 6}, return_type=Word))
        assert [doc.number for doc in said] == [1, 2, 3, 4, 5, 6]
        assert said[0].text == "The" and said[-1].text == "The capital of France is Paris."


@pytest.mark.parametrize("endpoint", SAYS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_document_arrives_while_its_endpoint_computes_on(flow: Served, way: str, endpoint: str, say: Callable[[str], None]) -> None:
    took = []
    async with aclosing(WAYS[way](flow.addresses, endpoint, "w", n=8, pause_s=0.1)) as docs:
        async for doc in docs:
            took.append(time.time() - doc["made"])
    say(f"{way} {endpoint}: {1e3 * statistics.median(took):.1f} ms from the yield through two executors to the client (median)")
    assert statistics.median(took) < 0.05, took


@pytest.mark.feature("QU-08", "GW-16")
@pytest.mark.parametrize("endpoint", SAYS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_leaves_ends_the_generator_within_a_second(flow: Served, way: str, endpoint: str) -> None:
    word = f"leave{endpoint.strip('/')}{list(WAYS).index(way)}"
    async with aclosing(WAYS[way](flow.addresses, endpoint, word, n=10_000, pause_s=0.02, rest_s=0.001)) as docs:
        assert [(await anext(docs))["number"] for _ in range(3)] == [0, 1, 2]
        left = time.time()
    await asyncio.to_thread(until, lambda: flow.lines("over", word), 5.0, "the end of the generator")
    assert float(flow.lines("over", word)[0][3]) - left < 1.0
    await nothing_left(flow.broker_url)


@pytest.mark.parametrize("way", ["SSE", "WebSocket"])
async def test_an_answer_of_all_documents_is_had_from_a_streaming_endpoint_too(flow: Served, way: str) -> None:
    body = {"data": [{"text": "w"}], "parameters": {"n": 3}}
    async with aiohttp.ClientSession() as session:
        if way == "SSE":
            headers = {"accept": "application/json"}
            async with session.post(f"http://{flow.addresses['http']}/say", json=body, headers=headers) as response:
                answer = await response.json()
        else:
            async with session.ws_connect(f"ws://{flow.addresses['websocket']}/say") as socket:
                await socket.send_json({**body, "stream": False})
                answer = await socket.receive_json(timeout=20)
    assert [doc["number"] for doc in answer["data"]] == [0, 1, 2] and "final" not in answer


async def test_a_slow_client_holds_back_its_own_stream_only(flow: Served) -> None:
    """A client that reads nothing: its sockets fill, then its generator stops; meanwhile others are served at once."""
    words = [f"slow{number}" for number in range(4)]
    async with aiohttp.ClientSession(read_bufsize=1024) as session:
        url = f"http://{flow.addresses['http']}/say"
        responses = [await session.get(url, json={"data": [{"text": word * 2000}], "parameters": {"n": 5000}}) for word in words]
        before = [psutil.Process(process.pid).memory_info().rss for process in flow.program.family()]
        said, still = -1, 0
        while still < 5:
            await asyncio.sleep(0.2)
            now = flow.ledger.read_text().count("said ")
            said, still = now, still + 1 if now == said else 0
        assert said < 4 * 5000
        began = time.monotonic()
        assert len(await read(WAYS["SSE"], flow, "/say", "quick", n=10)) == 10
        assert time.monotonic() - began < 1.0
        grown = max(after - first for after, first in zip((p.memory_info().rss for p in flow.program.family()), before, strict=True))
        assert grown < 64 << 20, f"a process grew by {grown >> 20} MiB"
        for response in responses:
            response.close()
    await asyncio.to_thread(until, lambda: all(flow.lines("over", word * 2000) for word in words), 5.0, "the end of the generators")


@pytest.mark.parametrize(("way", "victims"), [("SSE", "talk"), ("WebSocket", "one"), ("Jina's gRPC", "both")])
async def test_a_stream_survives_the_death_of_its_workers(programs: Programs, way: str, victims: str) -> None:
    """Killed in the middle, with nobody to take over until they are back: nothing is missing or doubled."""
    ledger = programs.folder / "ledger"
    mark = executor("one", "Mark", mark="+", ledger=str(ledger))
    served = serve(programs, "deaths", mark, ack_wait_s=1.0)
    numbers = []
    async with aclosing(WAYS[way](served.addresses, "/say", "w", n=60, pause_s=0.02)) as docs:
        async for doc in docs:
            numbers.append(doc["number"])
            if len(numbers) == 20:
                for name in ("talk", "one") if victims == "both" else (victims,):
                    psutil.Process(served.pid_of(name)).kill()
    assert numbers == list(range(60))
    assert {line[1] for line in served.lines("said", "w")} == ({"1"} if victims == "one" else {"1", "2"})
    await nothing_left(served.broker_url)


@pytest.mark.parametrize("way", ["SSE", "Jina's gRPC"])
async def test_a_stream_that_kills_its_workers_ends_in_quarantine(programs: Programs, way: str) -> None:
    served = serve(programs, "deadly", executor("one", "Mark", mark="+"), ack_wait_s=0.5, max_deliver=2)
    found = []
    with pytest.raises((StreamFailed, grpc.aio.AioRpcError), match="(?i)quarantined|given up"):
        async with aclosing(WAYS[way](served.addresses, "/say", "w", n=100, die_at=40, pause_s=0.005)) as docs:
            async for doc in docs:
                found.append(doc["number"])
    assert found == list(range(len(found))) and 30 < len(found) <= 40
    assert {line[1] for line in served.lines("said", "w")} == {"1", "2"}
    assert len(await read(WAYS["SSE"], served, "/say", "next", n=3)) == 3

    async def is_all_settled() -> bool:
        states = await stream_states(served.broker_url)
        return states["sf_deadly_dead"]["messages"] == 1 and not states["sf_deadly_talk"]["messages"]

    await eventually(is_all_settled, what="one dead letter and an empty queue")


@pytest.mark.parametrize("endpoint", SAYS)
@pytest.mark.parametrize("way", WAYS)
async def test_an_error_in_the_middle_is_told_after_what_came_before(flow: Served, way: str, endpoint: str) -> None:
    found = []
    with pytest.raises((StreamFailed, ExecutorError), match="EXECUTOR_ERROR|ValueError"):
        async with aclosing(WAYS[way](flow.addresses, endpoint, "w", n=100, bad_at=40)) as docs:
            async for doc in docs:
                found.append(doc["number"])
    assert found == list(range(40))


@pytest.mark.feature("ER-04")
@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
async def test_a_deadline_in_the_middle_is_told(flow: Served, protocol: str) -> None:
    word, found = f"late-{protocol}", []
    async with Client(host=f"{'ws' if protocol == 'websocket' else protocol}://{flow.addresses[protocol]}", asyncio=True) as client:
        with pytest.raises(RequestTimeout):
            async for doc in client.stream_doc("/say", Word(text=word), {"n": 1000, "pause_s": 0.02}, return_type=Word, timeout=0.5):
                found.append(doc.number)
    assert found == list(range(len(found))) and 5 < len(found) < 26
    await asyncio.to_thread(until, lambda: flow.lines("over", word), 1.0, "the end of the generator")
