"""The pieces that need no server: addresses, inputs, back-off, parameters, server-sent events, answers, return types."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from docarray import BaseDoc, DocList, DocVec
from docarray.base_doc import AnyDoc
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.errors import Code, Status
from streamflow.client import BadArguments, Client, RequestTimeout, ServerUnavailable, wait_or_raise_err
from streamflow.client.address import Address, Protocol, parse
from streamflow.client.errors import error_of, named_status
from streamflow.client.inputs import chunks
from streamflow.client.latency import breakdown
from streamflow.client.plain import parameters_of, plain
from streamflow.client.results import DataRequest, Header, Parts, Route, element_type
from streamflow.client.retry import Backoff
from streamflow.client.sse import events
from streamflow.client.transport import pairs
from tests.unit.client.backend import Item


@pytest.mark.feature("CL-01")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("grpc://localhost:12345",), Address("localhost", 12345, Protocol.GRPC)),
        (("nats://host",), Address("host", 4222, Protocol.NATS, broker_url="nats://host")),
        (("host", 17, "nats"), Address("host", 17, Protocol.NATS, broker_url="nats://host:17")),
        (("nats://u:p@a:1,nats://b:2/shop",), Address("a", 1, Protocol.NATS, broker_url="nats://u:p@a:1,nats://b:2", flow="shop")),
        (("tls://host/shop",), Address("host", 4222, Protocol.NATS, True, broker_url="tls://host", flow="shop")),
        (("http://example.org",), Address("example.org", 80, Protocol.HTTP)),
        (("https://example.org",), Address("example.org", 443, Protocol.HTTP, True)),
        (("wss://example.org:99/",), Address("example.org", 99, Protocol.WEBSOCKET, True)),
        (("ws://[::1]:99",), Address("::1", 99, Protocol.WEBSOCKET)),
        (("grpcs://a.b",), Address("a.b", 443, Protocol.GRPC, True)),
        (("0.0.0.0", 5), Address("0.0.0.0", 5, Protocol.GRPC)),
        (("host:17",), Address("host", 17, Protocol.GRPC)),
        (("host", "17", "HTTP"), Address("host", 17, Protocol.HTTP)),
        (("host", 17, "websocket", True), Address("host", 17, Protocol.WEBSOCKET, True)),
        (("host", None, "GRPC", True), Address("host", 443, Protocol.GRPC, True)),
        (("grpc://host", 17, None, True), Address("host", 17, Protocol.GRPC, True)),
    ],
)
def test_an_address_comes_from_a_url_or_keywords(arguments: tuple[Any, ...], expected: Address) -> None:
    assert parse(*arguments) == expected


@pytest.mark.feature("CL-01")
@pytest.mark.parametrize(
    "arguments",
    [
        ("grpc://host:1", 1),
        ("host:1", 2),
        ("http://host", None, "grpc"),
        ("http://host", 80, "http"),
        ("https://host", 80, None, False),
        ("ftp://host", 80),
        ("host", 80, "smtp"),
        ("host", "many"),
        ("host", 70000),
        ("host:port",),
        ("", 80),
        ("http://host/path",),
        ("nats://host/no.flow",),
        ("nats://host", 4222),
        ("nats://host", None, "grpc"),
    ],
)
def test_two_sources_of_truth_and_nonsense_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(BadArguments):
        parse(*arguments)
    with pytest.raises(ValueError):
        Client(*arguments[:3], tls=arguments[3] if len(arguments) > 3 else None)


def test_a_target_can_be_dialled() -> None:
    assert parse("ws://[::1]:99").target == "[::1]:99"
    assert str(parse("https://host")) == "https://host:443"


@pytest.mark.feature("CL-02")
def test_arguments_without_effect_are_named() -> None:
    with pytest.warns(UserWarning, match="cors, tracing"):
        Client(port=1, tracing=True, cors=True)  # type: ignore[call-overload]  # unknown ones are tolerated at run time only


@pytest.mark.parametrize(
    "options", [{"compression": "Zip"}, {"timeout": 0}, {"parameters": [1]}, {"return_type": str}, {"return_type": list[Item]}]
)
def test_arguments_of_post_are_checked_before_anything_is_sent(options: dict[str, Any]) -> None:
    with Client(port=1) as client, pytest.raises(BadArguments):
        client.post("/", Item(), **options)


@pytest.mark.feature("CL-02")
def test_channel_options_are_a_dict_or_pairs() -> None:
    for options in ({"grpc.max_metadata_size": 5}, [("grpc.max_metadata_size", 5)], None):
        Client(port=1, grpc_channel_options=options)
    with pytest.raises(BadArguments, match="grpc_channel_options"):
        Client(port=1, grpc_channel_options=[5])


@pytest.mark.feature("CL-04")
@given(st.integers(0, 40), st.integers(-1, 12), st.sampled_from(["list", "doclist", "iterator", "async"]))
async def test_chunks_hold_all_documents_in_order(count: int, size: int, form: str) -> None:
    docs = [Item(number=number) for number in range(count)]

    async def coming() -> AsyncIterator[Item]:
        for doc in docs:
            yield doc

    inputs = {"list": docs, "doclist": DocList[Item](docs), "iterator": iter(docs), "async": coming()}[form]
    found = [chunk async for chunk in chunks(inputs, size)]
    assert [doc.number for chunk in found for doc in chunk] == list(range(count))
    assert all(found)
    if size > 0:
        assert all(len(chunk) == size for chunk in found[:-1])
    else:
        assert len(found) == min(count, 1)


async def test_a_doc_vec_is_cut_too() -> None:
    class Point(BaseDoc):
        number: int

    found = [chunk async for chunk in chunks(DocVec[Point]([Point(number=number) for number in range(5)]), 2)]
    assert [[doc.number for doc in chunk] for chunk in found] == [[0, 1], [2, 3], [4]]


async def test_iterators_are_read_no_further_than_asked() -> None:
    read = 0

    def documents() -> Iterator[Item]:
        nonlocal read
        while True:
            read += 1
            yield Item()

    source = chunks(documents(), 3)
    await anext(source)
    await anext(source)
    assert read == 6
    await source.aclose()


async def test_nothing_is_one_request_without_documents() -> None:
    assert [chunk async for chunk in chunks(None, 10)] == [[]]
    assert [chunk async for chunk in chunks([], 10)] == []


@pytest.mark.feature("CL-12")
@given(st.integers(1, 10_000), st.floats(0, 10), st.floats(0, 10), st.floats(1, 10))
def test_pauses_stay_between_zero_and_their_bound(attempt: int, initial_s: float, max_s: float, multiplier: float) -> None:
    pause = Backoff(5, initial_s, max_s, multiplier).pause_s(attempt)
    assert 0 <= pause <= max_s
    assert attempt > 1 or pause <= initial_s


def test_pauses_are_spread_over_their_whole_range() -> None:
    backoff = Backoff(5, initial_s=1.0, max_s=100.0, multiplier=2.0)
    pauses = [backoff.pause_s(3) for _ in range(2000)]
    assert min(pauses) < 0.2
    assert 3.8 < max(pauses) <= 4.0


async def test_an_own_retry_loop_ends_with_the_error() -> None:
    error = ServerUnavailable("down")
    bounds: dict[str, Any] = {"max_attempts": 3, "backoff_multiplier": 1.5, "initial_backoff": 0.0, "max_backoff": 0.0}
    await wait_or_raise_err(1, error, **bounds)
    with pytest.raises(ConnectionError, match="down"):
        await wait_or_raise_err(3, error, **bounds)


def test_parameters_become_plain() -> None:
    class Deep(BaseDoc):
        names: list[str] = ["a"]

    values: dict[Any, Any] = {
        "array": np.arange(3),
        "scalar": np.float32(1.5),
        "model": Deep(id="x"),
        "when": datetime.date(2026, 1, 2),
        "set": {1},
        3: (1, 2),
        "none": None,
        "big": 1 << 60,
    }
    found = plain(values)
    assert found == {
        "array": [0, 1, 2],
        "scalar": 1.5,
        "model": {"id": "x", "names": ["a"]},
        "when": "2026-01-02",
        "set": [1],
        "3": [1, 2],
        "none": None,
        "big": 1 << 60,
    }
    assert msgpack.unpackb(msgpack.packb(found)) == found
    with pytest.raises(BadArguments, match="a object cannot be sent"):
        plain({"x": object()})
    assert parameters_of(None) == {}


@given(st.lists(st.integers(1, 30), max_size=60))
async def test_events_survive_any_chunking(sizes: list[int]) -> None:
    text = (
        ': hello\r\n\r\nevent: update\r\ndata: {"a": "é"}\r\n\r\nevent: update\ndata: 1\ndata: 2\n\nid: 5\n\ndata:x\n\nevent: end\r\n\r\n'
    ).encode()

    async def cut() -> AsyncIterator[bytes]:
        rest = text
        for size in sizes:
            yield rest[:size]
            rest = rest[size:]
        yield rest

    assert [event async for event in events(cut())] == [("update", '{"a": "é"}'), ("update", "1\n2"), ("message", "x"), ("end", "")]


@pytest.mark.feature("CL-05")
def test_return_types() -> None:
    assert element_type(DocList[Item]) == (Item, False)
    assert element_type(Item) == (Item, True)
    assert element_type(None) == element_type(DocList) == (AnyDoc, False)


@pytest.mark.feature("CL-25")
def test_metadata_is_joined_from_mappings_and_pairs() -> None:
    assert pairs({"A": "1"}, None, [("b", "2")], (("A", "3"),)) == (("a", "1"), ("b", "2"), ("a", "3"))


@pytest.mark.parametrize(
    ("name", "executor", "stacks", "code"),
    [
        ("ValueError", "First", ("Traceback",), Code.EXECUTOR_ERROR),
        ("ValueError", "", (), Code.EXECUTOR_ERROR),
        ("NotFound", "First", ("Traceback",), Code.EXECUTOR_ERROR),
        ("NotFound", "", (), Code.NOT_FOUND),
        ("InvalidInput", "First", (), Code.INVALID_ARGUMENT),  # its worker could not read the documents
        ("QUARANTINED", "", (), Code.QUARANTINED),
        ("InternalNetworkError", "", (), Code.UNAVAILABLE),
    ],
)
def test_jina_errors_are_known_by_name_unless_an_executor_raised_them(
    name: str, executor: str, stacks: tuple[str, ...], code: Code
) -> None:
    assert named_status(name, "text", stacks=stacks, executor=executor).code is code


@pytest.mark.feature("ER-10")
def test_unavailable_and_late_are_connection_errors() -> None:
    assert isinstance(error_of(Status(Code.UNAVAILABLE, "x"), "1"), ServerUnavailable)
    assert isinstance(error_of(Status(Code.DEADLINE_EXCEEDED, "x"), "1"), RequestTimeout)
    assert str(error_of(Status(Code.QUARANTINED, "given up"), "77")) == "given up (request 77)"


def test_documents_are_decoded_when_asked_for_and_once() -> None:
    answer = DataRequest(Parts(Header("1"), b'[{"text": "a"}]', "application/json"), Item)
    assert answer.docs is answer.docs
    assert answer.decode_docs() is not answer.decode_docs()
    assert answer.results == {}
    assert "request_id='1'" in repr(answer)


@pytest.mark.feature("CL-17")
def test_waiting_in_the_queue_is_shown_where_it_is_known() -> None:
    routes = [Route("gateway", 10.0, 10.5), Route("a", 10.2, 10.3, enqueued=10.1), Route("b", 10.35, 10.45, enqueued=10.3)]
    parts = breakdown(DataRequest(Parts(Header("1"), routes=lambda: routes)), 0.6)
    assert {name: round(spent) for name, spent in parts.items()} == {
        "Roundtrip": 600,
        "Client-server network": 100,
        "Server": 500,
        "Gateway-executors network": 150,
        "Waiting in queues": 150,
        "a": 100,
        "b": 100,
    }
