"""Jina's gRPC services, against a real server."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeAlias

import grpc
import pytest

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.envelope import EMPTY, PROTOBUF
from streamflow.broker.errors import Code, RuntimeFailToStart, Status
from streamflow.gateway.grpc_server import GrpcServer
from streamflow.gateway.jina_wire import data_content, docs_of, fill_struct, from_struct
from streamflow.gateway.proto import shallow_pb2 as pb
from tests.waiting import eventually

from .conftest import LOCAL
from .echoing import ENDPOINTS, TEXT_DOC, EchoDispatcher
from .grpc_calls import empty, request, single, stream

pytestmark = pytest.mark.feature("GW-22")

Channel: TypeAlias = grpc.aio.Channel
DATA = data_content([b"\n\x06\n\x01a\x12\x01\x00", b""])


def struct(values: dict[str, Any]) -> Any:
    message = pb.DataRequest()
    fill_struct(message.parameters, values)
    return message.parameters


@pytest.mark.feature("DC-06", "PR-01")
async def test_documents_travel_as_bytes_and_come_back(channel: Channel, dispatcher: EchoDispatcher) -> None:
    answer = await single(channel)(request("r1", data=DATA), timeout=10)
    assert (answer.header.request_id, answer.header.exec_endpoint, answer.data) == ("r1", "/echo", DATA)
    assert [route.executor for route in answer.routes] == ["gateway", "encoder"]
    assert not answer.header.HasField("status")
    (call,) = dispatcher.calls
    assert (call.body, call.content_type, call.accept) == (DATA, PROTOBUF, PROTOBUF)


@pytest.mark.feature("PR-02")
async def test_the_header_reaches_the_call(channel: Channel, dispatcher: EchoDispatcher) -> None:
    header = {"request_id": "r1", "exec_endpoint": "echo", "target_executor": "enc.*", "timeout": 4_000_000_000}
    metadata = (("traceparent", "00-a-b-01"), ("other", "x"))
    answer = await single(channel)(pb.DataRequest(header=header), metadata=metadata)
    (call,) = dispatcher.calls
    assert (call.endpoint, call.target_executor, call.client_id, call.deadline) == ("/echo", "enc.*", "r1", 4_000_000_000.0)
    assert (call.trace, call.content_type) == ({"traceparent": "00-a-b-01"}, EMPTY)
    assert answer.header.target_executor == "enc.*"


@pytest.mark.feature("PR-02")
async def test_the_deadline_of_the_grpc_call_counts_when_it_is_earlier(channel: Channel, dispatcher: EchoDispatcher) -> None:
    sent = time.time()
    await single(channel)(request("r1"), timeout=5)
    assert sent + 5 <= dispatcher.calls[0].deadline <= time.time() + 5.02  # gRPC rounds a timeout up on the wire: 10 ms at this length
    await single(channel)(request("r1"))
    assert dispatcher.calls[1].deadline == 0.0


@pytest.mark.feature("DC-05")
async def test_parameters_are_floats_on_both_ways(channel: Channel, dispatcher: EchoDispatcher) -> None:
    values = {"k": 5, "name": "x", "flag": True, "none": None, "list": [1, "a", {"b": 2.5}], "inner": {"c": []}}
    dispatcher.results = {"encoder/rep-0": {"n": 20}}
    answer = await single(channel)(request("r1", parameters=struct(values)))
    inward = dispatcher.calls[0].parameters
    assert inward == values
    assert isinstance(inward["k"], float)
    assert from_struct(answer.parameters) == {**values, "__results__": {"encoder/rep-0": {"n": 20.0}}}


@pytest.mark.feature("ER-02", "PR-04")
async def test_an_executors_exception_is_a_normal_answer(channel: Channel, dispatcher: EchoDispatcher) -> None:
    dispatcher.statuses["/echo"] = Status(Code.EXECUTOR_ERROR, "ValueError('ä')", "ValueError", ("ä",), ("line 1",), "Enc")
    answer = await single(channel)(request("r1", data=DATA))
    status = answer.header.status
    assert (answer.header.request_id, status.code, status.description) == ("r1", 1, "ValueError('ä')")
    exception = status.exception
    assert (exception.name, list(exception.args), list(exception.stacks), exception.executor) == ("ValueError", ["ä"], ["line 1"], "Enc")
    assert answer.data == b""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Code.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
        (Code.DEADLINE_EXCEEDED, grpc.StatusCode.DEADLINE_EXCEEDED),
        (Code.RESOURCE_EXHAUSTED, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_what_never_ran_ends_the_call_with_text_and_id(
    channel: Channel, dispatcher: EchoDispatcher, code: Code, expected: grpc.StatusCode
) -> None:
    dispatcher.statuses["/echo"] = Status(code, "nobody is there")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await single(channel)(request("r1"))
    assert (raised.value.code(), raised.value.details()) == (expected, "nobody is there")
    told = dict(raised.value.trailing_metadata())
    assert told["x-request-id"] == "r1"
    assert [told[f"x-streamflow-{name}"] for name in ("executor", "replica", "attempt")] == ["encoder", "encoder-0", "1"]


async def test_bytes_that_are_no_message_are_an_answer(channel: Channel) -> None:
    raw = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data", response_deserializer=pb.DataRequest.FromString)
    answer = await raw(b"\xff\xff")
    assert answer.header.status.code == 1
    assert answer.header.status.exception.name == "InvalidInput"


async def test_an_unbound_endpoint_passes_through(channel: Channel, dispatcher: EchoDispatcher) -> None:
    answer = await single(channel)(request("r1", "/nobody", data=DATA))
    assert answer.data == DATA


@pytest.mark.feature("QU-08")
async def test_a_client_that_cancels_cancels_the_request(channel: Channel, dispatcher: EchoDispatcher) -> None:
    call = single(channel)(request("r1", "/held"))
    await eventually(lambda: dispatcher.held)
    call.cancel()
    await eventually(lambda: dispatcher.cancelled == 1)


@pytest.mark.feature("GW-23")
async def test_a_stream_answers_in_completion_order(channel: Channel, dispatcher: EchoDispatcher) -> None:
    call = stream(channel)([request(str(number), "/held") for number in range(3)])
    await eventually(lambda: len(dispatcher.held) == 3)
    answers = []
    for index in (2, 1, 0):
        dispatcher.release(index)
        answers.append((await call.read()).header.request_id)
    assert answers == ["2", "1", "0"]
    assert await call.read() is grpc.aio.EOF


async def test_a_stream_answers_in_order_when_the_client_asks_for_it(channel: Channel, dispatcher: EchoDispatcher) -> None:
    call = stream(channel)([request(str(number), "/held") for number in range(3)], metadata=(("__results_in_order__", "true"),))
    await eventually(lambda: len(dispatcher.held) == 3)
    for index in (2, 1, 0):
        dispatcher.release(index)
    assert [answer.header.request_id async for answer in call] == ["0", "1", "2"]


@pytest.mark.feature("GW-24")
@pytest.mark.parametrize(("asked", "expected"), [("2", 2), ("100", 4), ("junk", 4)])
async def test_a_stream_keeps_the_smaller_prefetch(channel: Channel, dispatcher: EchoDispatcher, asked: str, expected: int) -> None:
    call = stream(channel)([request(str(number), "/held") for number in range(10)], metadata=(("__prefetch__", asked),))
    for done in range(10):
        await eventually(lambda limit=min(done + expected, 10): len(dispatcher.calls) == limit)  # type: ignore[misc]
        assert len(dispatcher.held) <= expected
        dispatcher.release()
        await call.read()


async def test_errors_and_bad_messages_do_not_end_a_stream(channel: Channel, dispatcher: EchoDispatcher) -> None:
    dispatcher.announce((*ENDPOINTS, EndpointInfo("/fail")))
    dispatcher.statuses["/fail"] = Status(Code.EXECUTOR_ERROR, "x")
    call = stream(channel)([request("1", "/fail"), b"\xff\xff", request("3")])
    answers = [answer async for answer in call]
    assert [answer.header.status.code for answer in answers] == [1, 1, 0]
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.feature("ER-03")
async def test_an_unreachable_executor_ends_a_stream_after_the_other_answers(channel: Channel, dispatcher: EchoDispatcher) -> None:
    dispatcher.announce((*ENDPOINTS, EndpointInfo("/down")))
    dispatcher.statuses["/down"] = Status(Code.UNAVAILABLE, "nobody serves it")
    call = stream(channel)([request("1", "/held"), request("2", "/down")])
    await eventually(lambda: len(dispatcher.calls) == 2)
    dispatcher.release()
    assert (await call.read()).header.request_id == "1"
    with pytest.raises(grpc.aio.AioRpcError, match="nobody serves it") as raised:
        await call.read()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_leaving_a_stream_cancels_its_requests(channel: Channel, dispatcher: EchoDispatcher) -> None:
    call = stream(channel)([request(str(number), "/held") for number in range(3)])
    await eventually(lambda: len(dispatcher.held) == 3)
    call.cancel()
    await eventually(lambda: dispatcher.cancelled == 3)


async def test_a_streaming_endpoint(channel: Channel, dispatcher: EchoDispatcher) -> None:
    call = channel.unary_stream(
        "/jina.JinaSingleDocumentRequestRPC/stream_doc",
        request_serializer=pb.SingleDocumentRequest.SerializeToString,
        response_deserializer=pb.SingleDocumentRequest.FromString,
    )
    sent = pb.SingleDocumentRequest(header={"request_id": "s1", "exec_endpoint": "/hello"}, document=b"\n\x06\n\x01a\x12\x01\x00")
    answers = [answer async for answer in call(sent)]
    assert [answer.document for answer in answers] == [sent.document] * 3
    assert {answer.header.request_id for answer in answers} == {"s1"}
    assert docs_of(dispatcher.calls[0].body) == [sent.document]
    sent.header.exec_endpoint = "/echo"
    assert len([answer async for answer in call(sent)]) == 3, "any endpoint may be asked for a stream"
    unknown = [answer.header.status.exception.name async for answer in call(pb.SingleDocumentRequest(header={"exec_endpoint": "/nope"}))]
    assert unknown == ["NotFound"]


@pytest.mark.feature("PR-05", "PR-06")
async def test_a_list_of_requests_is_one_request(channel: Channel, dispatcher: EchoDispatcher) -> None:
    call = channel.unary_unary(
        "/jina.JinaDataRequestRPC/process_data",
        request_serializer=pb.DataRequestList.SerializeToString,
        response_deserializer=pb.DataRequest.FromString,
    )
    one, two = data_content([b"\n\x00"]), data_content([b"", b"\n\x00"])
    answer = await call(pb.DataRequestList(requests=[request("r1", data=one), request("r2", data=two), request("r3")]))
    assert (answer.header.request_id, docs_of(answer.data)) == ("r1", [b"\n\x00", b"", b"\n\x00"])
    assert (await call(pb.DataRequestList())).header.status.code == 1
    opaque = pb.DataContent(docs_bytes=b"x").SerializeToString()
    assert (await call(pb.DataRequestList(requests=[request("r1", data=opaque)]))).data == opaque
    mixed = await call(pb.DataRequestList(requests=[request("r1", data=opaque), request("r2", data=one)]))
    assert "docs_bytes" in mixed.header.status.description


@pytest.mark.feature("PR-05", "PR-06", "GW-28", "GW-29")
async def test_discovery_readiness_and_status(channel: Channel, dispatcher: EchoDispatcher) -> None:
    endpoints = await empty(channel, "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery", pb.Endpoints)(b"")
    assert list(endpoints.endpoints) == ["/a/b", "/echo", "/held", "/hello"]
    schemas = from_struct(endpoints.schemas)
    assert schemas["/echo"]["input"] == TEXT_DOC
    assert schemas["/hello"]["is_generator"] is True
    dry_run = empty(channel, "/jina.JinaGatewayDryRunRPC/dry_run", pb.Status)
    assert await dry_run(b"") == pb.Status()
    dispatcher.connected = False
    assert (await dry_run(b"")).code == 1
    info = await empty(channel, "/jina.JinaInfoRPC/_status", pb.Info)(b"")
    assert info.jina["python"]


async def test_a_message_above_the_limit_is_refused_and_the_connection_stays(channel: Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await single(channel)(request("r1", data=b"x" * 70_000))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await single(channel)(request("r2"))).header.request_id == "r2"


async def test_a_crash_inside_the_gateway_tells_no_details(
    channel: Channel, dispatcher: EchoDispatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streamflow.gateway.jina_wire.data_answer", lambda *_: 1 / 0)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await single(channel)(request("r1"))
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.INTERNAL, "the gateway failed on this call")
    assert "ZeroDivisionError" in caplog.text


async def test_a_port_that_is_taken_is_an_error(
    grpc_server: tuple[GrpcServer, int], dispatcher: EchoDispatcher, gateway_settings: Any
) -> None:
    with pytest.raises(RuntimeFailToStart, match=str(grpc_server[1])):
        await GrpcServer(dispatcher, gateway_settings).start([(LOCAL, grpc_server[1])])


async def test_stopping_answers_what_is_in_flight_and_ends_streams(dispatcher: EchoDispatcher, gateway_settings: Any) -> None:
    server = GrpcServer(dispatcher, gateway_settings)
    ports = await server.start([(LOCAL, 0), (LOCAL, 0)])
    assert len(set(ports)) == 2
    async with grpc.aio.insecure_channel(f"{LOCAL}:{ports[1]}") as channel:
        call = stream(channel)()
        await call.write(request("1", "/held"))
        unary = asyncio.ensure_future(single(channel)(request("2", "/held")))
        await eventually(lambda: len(dispatcher.held) == 2)
        stopping = asyncio.create_task(server.stop(10))
        await asyncio.sleep(0.05)
        dispatcher.release()
        dispatcher.release()
        assert (await call.read()).header.request_id == "1"
        with pytest.raises(grpc.aio.AioRpcError, match="shutting down") as raised:
            await call.read()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await unary).header.request_id == "2"
        await asyncio.wait_for(stopping, 5)
