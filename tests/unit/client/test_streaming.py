"""stream_doc(): one document in, documents out as they come, by gRPC (both interfaces), server-sent events and WebSocket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from streamflow.broker.errors import ExecutorError, StreamflowError
from streamflow.client import BadArguments, Client, ServerUnavailable, SyncClient
from tests.unit.client.backend import Item
from tests.unit.client.servers import Running, protocol, serving

pytestmark = pytest.mark.feature("CL-09")


PATIENT: dict[str, Any] = {"max_attempts": 100, "initial_backoff": 0.05, "max_backoff": 0.1}


@pytest.fixture(params=["grpc", "jina", "http", "websocket"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def server(kind: str) -> Iterator[Running]:
    with serving(kind) as running:
        yield running


def test_documents_come_one_by_one(client: SyncClient) -> None:
    stream = client.stream_doc("/talk", Item(text="a b c"), return_type=Item)
    assert next(stream).text == "a"
    assert [(doc.text, doc.number) for doc in stream] == [("b", 1), ("c", 2)]


def test_parameters_reach_a_streaming_endpoint(client: SyncClient) -> None:
    found = list(client.stream_doc("/talk", Item(text="a b"), parameters={"suffix": "!"}, return_type=Item, timeout=5.0))
    assert [doc.text for doc in found] == ["a!", "b!"]


def test_without_a_type_documents_keep_every_field(client: SyncClient) -> None:
    (doc,) = client.stream_doc("/talk", Item(text="a"))
    assert (doc.text, doc.number) == ("a", 0)


def test_an_error_inside_of_the_stream_raises_after_what_came_before(client: SyncClient) -> None:
    stream = client.stream_doc("/talk", Item(text="a bad"), return_type=Item)
    assert next(stream).text == "a"
    with pytest.raises(ExecutorError, match="executor Talker.*: ValueError"):
        next(stream)


def test_a_stream_may_be_left_early(client: SyncClient) -> None:
    for doc in client.stream_doc("/talk", Item(text="a b c"), return_type=Item):
        assert doc.text == "a"
        break
    assert next(client.stream_doc("/talk", Item(text="d"), return_type=Item)).text == "d"


def test_more_than_one_document_is_refused(client: SyncClient) -> None:
    with pytest.raises(BadArguments, match="one document"):
        next(client.stream_doc("/talk", [Item(), Item()]))


def test_a_server_that_is_down_raises_a_connection_error(client: SyncClient, server: Running) -> None:
    server.stop()
    with pytest.raises(ServerUnavailable):
        next(client.stream_doc("/talk", Item(text="a")))
    server.start()


def test_a_broken_stream_goes_on_where_it_was(client: SyncClient, server: Running) -> None:
    stream = client.stream_doc("/talk", Item(text="a b wait c d"), return_type=Item, **PATIENT)
    assert [next(stream).text, next(stream).text] == ["a", "b"]
    first = server.backend.asked[0].request_id
    server.stop()
    server.start()
    server.loop.call_soon_threadsafe(server.backend.released.set)
    assert [(doc.text, doc.number) for doc in stream] == [("wait", 2), ("c", 3), ("d", 4)]
    assert {asked.request_id for asked in server.backend.asked} == {first}


def test_a_broken_stream_without_attempts_raises_with_its_request_id(client: SyncClient, server: Running) -> None:
    stream = client.stream_doc("/talk", Item(text="a wait b"), return_type=Item)
    assert next(stream).text == "a"
    server.stop()
    with pytest.raises(ServerUnavailable) as caught:
        next(stream)
    assert len(caught.value.request_id) == 32
    assert (caught.value.attempts, caught.value.request_id in str(caught.value)) == (1, True)
    server.start()


def test_an_endpoint_that_does_not_repeat_itself_is_no_shorter_stream(client: SyncClient, server: Running) -> None:
    stream = client.stream_doc("/talk", Item(text="a b wait wait"), return_type=Item, **PATIENT)
    assert [next(stream).text, next(stream).text] == ["a", "b"]
    server.stop()
    server.start()
    server.backend.forgets = True
    with pytest.raises(StreamflowError, match="ended after 0 documents, 2 had come"):
        next(stream)


async def test_the_async_client_streams(kind: str, server: Running) -> None:
    async with Client("127.0.0.1", server.port, protocol(kind), asyncio=True) as client:
        assert [doc.text async for doc in client.stream_doc("/talk", Item(text="a b c"), return_type=Item)] == ["a", "b", "c"]


def test_a_server_without_streams_over_websocket_is_named() -> None:
    with (
        serving("websocket") as server,
        Client("127.0.0.1", server.port, "websocket") as client,
    ):
        server.server.listed = ("/talk",)
        with pytest.raises(StreamflowError, match="does not stream over WebSocket"):
            next(client.stream_doc("/talk", Item(text="a")))


def test_parameters_that_a_server_would_not_see_are_refused() -> None:
    with serving("listed") as server, Client("127.0.0.1", server.port, "http") as client:
        server.server.listed = ("/talk",)
        assert next(client.stream_doc("/talk", Item(text="a"), return_type=Item)).text == "a"
        with pytest.raises(StreamflowError, match="takes no parameters for a stream over HTTP: use gRPC"):
            next(client.stream_doc("/talk", Item(text="a"), parameters={"suffix": "!"}))


def test_a_socket_that_closes_in_the_middle_is_no_end_of_a_stream() -> None:
    with serving("websocket") as server, Client("127.0.0.1", server.port, "websocket") as client:
        stream = client.stream_doc("/talk", Item(text="a wait b"), return_type=Item)
        assert next(stream).text == "a"
        server.stop()
        with pytest.raises(ServerUnavailable, match="before its last part"):
            next(stream)
