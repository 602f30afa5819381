"""Our own gRPC service."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc
import msgpack
import pytest

from streamflow.broker.envelope import COLUMNS, JSON
from streamflow.broker.errors import Code, Status
from streamflow.gateway.proto import streamflow_pb2 as own
from tests.waiting import eventually

from .echoing import EchoDispatcher
from .grpc_calls import native

Channel: TypeAlias = grpc.aio.Channel


def request(request_id: str = "r1", endpoint: str = "/echo", **fields: Any) -> Any:
    return own.Request(request_id=request_id, endpoint=endpoint, **fields)


def status_of(response: Any) -> Status:
    return Status.from_wire(msgpack.unpackb(response.status)) if response.status else Status()


async def test_a_body_of_columns_comes_back_with_parameters_and_routes(channel: Channel, dispatcher: EchoDispatcher) -> None:
    dispatcher.results = {"encoder/rep-0": {"n": 1}}
    fields: dict[str, Any] = {"target_executor": "enc", "deadline": 4e9, "trace": {"traceparent": "00-a-b-01"}}
    response = await native(channel, "Unary")(
        request(content_type=COLUMNS, accept=COLUMNS, body=b"columns", parameters=msgpack.packb({"k": 5}), **fields)
    )
    (call,) = dispatcher.calls
    assert (call.endpoint, call.content_type, call.accept, call.body) == ("/echo", COLUMNS, COLUMNS, b"columns")
    assert (call.parameters, call.target_executor, call.deadline, call.trace) == ({"k": 5}, "enc", 4e9, {"traceparent": "00-a-b-01"})
    assert isinstance(call.parameters["k"], int)
    assert (response.request_id, response.body, response.content_type, response.status) == ("r1", b"columns", COLUMNS, b"")
    assert msgpack.unpackb(response.parameters) == {"k": 5}
    assert msgpack.unpackb(response.results) == {"encoder/rep-0": {"n": 1}}
    assert [hop[0] for hop in msgpack.unpackb(response.routes)] == ["gateway", "encoder"]
    assert (response.position, response.final) == (-1, True)


async def test_the_answer_has_the_form_of_the_request_unless_asked_otherwise(channel: Channel, dispatcher: EchoDispatcher) -> None:
    unary = native(channel, "Unary")
    await unary(request(content_type=JSON, body=b'{"data":[]}'))
    await unary(request())
    await unary(request(accept=JSON))
    assert [call.accept for call in dispatcher.calls] == [JSON, COLUMNS, JSON]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"content_type": "text/html"}, "content_type"),
        ({"accept": "text/html"}, "accept"),
        ({"deadline": float("nan")}, "deadline"),
        ({"deadline": -1.0}, "deadline"),
        ({"parameters": b"\xc1"}, "parameters"),
        ({"parameters": msgpack.packb([1])}, "parameters"),
        ({"target_executor": "["}, "target_executor"),
    ],
)
async def test_what_is_invalid_is_named_in_an_answer(channel: Channel, fields: dict[str, Any], named: str) -> None:
    status = status_of(await native(channel, "Unary")(request(**fields)))
    assert status.code is Code.INVALID_ARGUMENT
    assert named in status.description


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.EXECUTOR_ERROR])
async def test_every_error_is_in_the_answer(channel: Channel, dispatcher: EchoDispatcher, code: Code) -> None:
    dispatcher.statuses["/echo"] = Status(code, "x", "E", ("1",), ("line",), "Enc")
    assert status_of(await native(channel, "Unary")(request())) == dispatcher.statuses["/echo"]
    answers = [answer async for answer in native(channel, "Call")([request("1"), b"\xff", request("2")])]
    assert sorted(answer.request_id for answer in answers if status_of(answer).code is code) == ["1", "2"]
    assert len(answers) == 3


async def test_a_stream_of_requests_is_bounded_and_unordered(channel: Channel, dispatcher: EchoDispatcher) -> None:
    call = native(channel, "Call")([request(str(number), "/held") for number in range(6)])
    await eventually(lambda: len(dispatcher.held) == 4)
    dispatcher.release(3)
    assert (await call.read()).request_id == "3"
    await eventually(lambda: len(dispatcher.calls) == 5)
    call.cancel()
    await eventually(lambda: dispatcher.cancelled >= 4)


async def test_parts_of_a_streaming_endpoint(channel: Channel, dispatcher: EchoDispatcher) -> None:
    call = native(channel, "Stream")(request("s", "/hello", content_type=JSON, body=b'{"data":[{"a":1}]}'))
    parts = [part async for part in call]
    assert [(part.position, part.final) for part in parts] == [(0, False), (1, False), (2, False), (3, True)]
    assert parts[1].body == b'[{"n":1,"of":{"a":1}}]'
    assert {part.request_id for part in parts} == {"s"}


async def test_leaving_a_streaming_endpoint_ends_it(channel: Channel, dispatcher: EchoDispatcher) -> None:
    dispatcher.stream_holds.clear()
    call = native(channel, "Stream")(request("s", "/hello", content_type=JSON, body=b'{"data":[{"a":1}]}'))
    await call.read()
    call.cancel()
    await eventually(lambda: dispatcher.streams_closed == 1)
