"""Connections that fail, servers that come back, requests that are sent again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from docarray import DocList

from streamflow.broker.errors import ExecutorError, InvalidInput, Overloaded
from streamflow.client import Client, RequestTimeout, ServerUnavailable, SyncClient
from tests.unit.client.backend import Item
from tests.unit.client.grpc_servers import GrpcServer
from tests.unit.client.servers import Running, serving

QUICK: dict[str, Any] = {"initial_backoff": 0.05, "max_backoff": 0.1}


@pytest.mark.feature("ER-10")
def test_a_server_that_is_down_raises_a_connection_error(client: SyncClient, server: Running) -> None:
    server.stop()
    with pytest.raises(ServerUnavailable) as caught:
        client.post("/echo", [Item(), Item()], request_size=1)
    assert isinstance(caught.value, ConnectionError)
    assert str(server.port) in str(caught.value)
    server.start()


@pytest.mark.feature("CL-12")
def test_attempts_end(client: SyncClient, server: Running) -> None:
    server.stop()
    started = time.monotonic()
    with pytest.raises(ServerUnavailable):
        client.post("/echo", Item(), max_attempts=4, initial_backoff=0.01, max_backoff=0.02)
    assert time.monotonic() - started < 2
    server.start()


@pytest.mark.feature("CL-12")
@pytest.mark.parametrize("back_after_s", [0.2, None])
def test_t60_five_attempts_while_the_server_is_down(client: SyncClient, server: Running, back_after_s: float | None) -> None:
    """The retry loop of the documentation: in time, or a ConnectionError after the last attempt."""
    server.stop()
    bounds: dict[str, Any] = {"max_attempts": 5, "initial_backoff": 0.8, "backoff_multiplier": 1.5, "max_backoff": 5.0}
    if back_after_s is None:
        bounds |= {"initial_backoff": 0.02, "max_backoff": 0.1}  # the same, sooner
        with pytest.raises(ConnectionError, match="5 attempts"):
            client.post("/echo", Item(), **bounds)
        server.start()
        return
    timer = threading.Timer(back_after_s, server.start)  # four pauses are shorter than that once in 70,000 times
    timer.start()
    assert client.post("/echo", Item(text="a"), return_type=Item, **bounds).text == "A"
    timer.join()


@pytest.mark.feature("CL-12")
def test_a_server_that_comes_back_gets_the_request(client: SyncClient, server: Running) -> None:
    client.post("/echo", Item())
    server.stop()
    timer = threading.Timer(0.5, server.start)
    timer.start()
    found = client.post(
        "/echo", (Item(number=number) for number in range(4)), request_size=1, max_attempts=60, return_type=DocList[Item], **QUICK
    )
    timer.join()
    assert sorted(found.number) == [0, 1, 2, 3]


def test_a_broken_connection_is_made_again_and_each_document_answered_once(client: SyncClient, server: Running) -> None:
    server.backend.failures = 3

    def documents() -> Iterator[Item]:
        for number in range(12):
            yield Item(number=number)

    found = client.post("/flaky", documents, request_size=1, max_attempts=10, results_in_order=True, return_type=DocList[Item], **QUICK)
    assert found.number == list(range(12))
    ids: dict[int, set[str]] = {}
    for asked in server.backend.asked:
        ids.setdefault(asked.docs[0].number, set()).add(asked.request_id)
    assert all(len(same) == 1 for same in ids.values())


def test_without_attempts_a_broken_connection_raises(client: SyncClient, server: Running) -> None:
    server.backend.failures = 1
    with pytest.raises(ServerUnavailable):
        client.post("/flaky", [Item() for _ in range(5)], request_size=1)
    assert client.post("/flaky", Item(text="a"), return_type=Item).text == "a"


def test_a_full_queue_is_asked_again(client: SyncClient, server: Running) -> None:
    server.backend.refusals = 2
    assert client.post("/busy", Item(text="a"), return_type=Item, max_attempts=3, **QUICK).text == "a"
    server.backend.refusals = 1
    with pytest.raises(Overloaded):
        client.post("/busy", Item())


def test_an_executor_error_is_not_sent_again(client: SyncClient, server: Running) -> None:
    with pytest.raises(ExecutorError):
        client.post("/fail", Item(text="bad"), max_attempts=5, **QUICK)
    assert len(server.backend.asked) == 1


def test_a_late_answer_is_asked_for_again(client: SyncClient, server: Running) -> None:
    def release() -> None:
        server.loop.call_soon_threadsafe(server.backend.released.set)

    timer = threading.Timer(0.4, release)
    timer.start()
    found = client.post(
        "/hold", [Item(number=1), Item(number=2)], request_size=1, timeout=0.3, max_attempts=9, return_type=DocList[Item], **QUICK
    )
    timer.join()
    assert sorted(found.number) == [1, 2]


def test_the_time_for_an_answer_counts_each_attempt(client: SyncClient, server: Running) -> None:
    with pytest.raises(RequestTimeout):
        client.post("/hold", Item(), timeout=0.1, max_attempts=3, **QUICK)
    assert len(server.backend.asked) == 3


@pytest.mark.feature("CL-14")
def test_independent_calls_instead_of_a_stream() -> None:
    for kind in ("grpc", "jina"):
        with serving(kind) as server, Client("127.0.0.1", server.port) as client:
            docs = [Item(number=number) for number in range(6)]
            assert sorted(client.post("/echo", docs, request_size=1, stream=False, return_type=DocList[Item]).number) == list(range(6))
            client.post("/echo", docs, request_size=1, compression="Gzip")
            client.post("/echo", docs, request_size=1, compression="Deflate")
            methods = [asked.method for asked in server.backend.asked]
            assert methods == ["unary"] * 6 + ["stream"] * 12


def test_a_gateway_of_the_other_kind_may_take_over() -> None:
    """The interface is asked for anew after the connection failed."""
    with serving("grpc") as server, Client("127.0.0.1", server.port) as client:
        client.post("/echo", Item())
        server.stop()
        with pytest.raises(ServerUnavailable):
            client.post("/echo", Item())
        server.run(_start_jina(server))
        assert client.post("/echo", Item(text="a"), return_type=Item, max_attempts=50, **QUICK).text == "A"


async def _start_jina(server: Running) -> None:
    server.server = GrpcServer(server.backend, own_too=False)
    await server.server.start(server.port)


def test_http_asks_for_the_routes_only_when_a_path_is_refused() -> None:
    with serving("http") as server, Client("127.0.0.1", server.port, "http") as client:
        client.post("/echo", Item())
        client.post("/", Item())
        assert server.server.requests == ["POST /echo", "POST /default"]
    with serving("listed") as server, Client("127.0.0.1", server.port, "http") as client:
        client.post("/echo", Item())
        client.post("/other", Item())
        client.post("/other", Item())
        assert server.server.requests == ["POST /echo", "POST /other", "GET /openapi.json", "POST /default", "POST /default"]


def test_something_else_than_a_gateway_is_named() -> None:
    for kind, wrong in (("http", "grpc"), ("grpc", "http"), ("grpc", "websocket")):
        with (
            serving(kind) as server,
            Client("127.0.0.1", server.port, wrong) as client,
            pytest.raises(ConnectionError, match=str(server.port)),
        ):
            client.post("/echo", Item(), timeout=5.0)


def test_a_request_that_the_server_could_not_read_leaves_nobody_waiting(client: SyncClient) -> None:
    """Such an answer names no request."""
    with pytest.raises(InvalidInput, match="not a message"):
        client.post("/unread", [Item(), Item()], request_size=1)
