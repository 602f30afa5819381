"""Requests over WebSocket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.errors import Code, Status
from streamflow.broker.settings import GatewaySettings
from streamflow.gateway.http_app import create_app
from streamflow.gateway.http_server import HttpServer, serve_http
from streamflow.gateway.jina_wire import data_content
from streamflow.gateway.proto import shallow_pb2 as pb
from tests.waiting import eventually

from .conftest import LOCAL
from .echoing import ENDPOINTS, EchoDispatcher

pytestmark = pytest.mark.feature("GW-21")

Session = aiohttp.ClientSession
Socket = aiohttp.ClientWebSocketResponse
BYTES: Any = {"protocols": ("bytes",)}


async def ask(socket: Socket, message: Any) -> Any:
    await socket.send_json(message)
    return await answer(socket)


async def answer(socket: Socket) -> Any:
    message = await socket.receive(timeout=10)
    assert message.type is aiohttp.WSMsgType.TEXT, message
    return json.loads(message.data)


async def answer_bytes(socket: Socket) -> pb.DataRequest:
    message = await socket.receive(timeout=10)
    assert message.type is aiohttp.WSMsgType.BINARY, message
    return pb.DataRequest.FromString(message.data)


def request(request_id: str, endpoint: str = "/echo", data: bytes = b"") -> bytes:
    return pb.DataRequest(header={"request_id": request_id, "exec_endpoint": endpoint}, data=data).SerializeToString()


async def closing(socket: Socket) -> tuple[int, str]:
    message = await socket.receive(timeout=10)
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return message.data, message.extra or ""


async def test_json_requests_and_the_end_of_input(http: Session) -> None:
    async with http.ws_connect("/") as socket:
        reply = await ask(socket, {"execEndpoint": "/echo", "data": [{"id": "1"}], "header": {"requestId": "r1"}})
        assert reply["data"] == [{"id": "1"}]
        assert reply["header"]["requestId"] == "r1"
        await socket.send_str("{ }")
        assert await closing(socket) == (1000, "")


async def test_the_chosen_sub_protocol_is_said(http: Session) -> None:
    for offered, chosen in (((), None), (("json",), "json"), (("x", "bytes"), "bytes"), (("x",), None)):
        async with http.ws_connect("/", protocols=offered) as socket:
            assert socket.protocol == chosen


async def test_a_socket_at_an_endpoint_needs_no_name(http: Session, dispatcher: EchoDispatcher) -> None:
    async with http.ws_connect("/echo") as socket:
        assert (await ask(socket, {"data": []}))["header"]["execEndpoint"] == "/echo"


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        ("not JSON", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"data": []}', "execEndpoint"),
        ('{"execEndpoint": 5}', "execEndpoint"),
        ('{"execEndpoint": "/echo", "header": {"timeout": "x"}}', "header.timeout"),
        ('{"execEndpoint": "/echo", "targetExecutor": "("}', "target_executor"),
    ],
)
async def test_an_invalid_frame_is_answered_and_the_socket_stays(http: Session, frame: str, field: str) -> None:
    async with http.ws_connect("/") as socket:
        await socket.send_str(frame)
        reply = await answer(socket)
        assert reply["code"] == "INVALID_ARGUMENT"
        assert field in reply["detail"]
        assert (await ask(socket, {"execEndpoint": "/echo", "data": []}))["data"] == []


@pytest.mark.parametrize("code", [Code.EXECUTOR_ERROR, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED])
async def test_in_json_every_error_is_an_answer(http: Session, dispatcher: EchoDispatcher, code: Code) -> None:
    dispatcher.statuses["/echo"] = Status(code, "went wrong")
    async with http.ws_connect("/echo") as socket:
        for number in range(2):
            reply = await ask(socket, {"header": {"requestId": str(number)}})
            assert (reply["code"], reply["header"]["requestId"]) == (code.value, str(number))


@pytest.mark.feature("GW-23")
async def test_answers_come_in_completion_order_and_the_end_waits_for_them(http: Session, dispatcher: EchoDispatcher) -> None:
    async with http.ws_connect("/held") as socket:
        for number in range(3):
            await socket.send_json({"header": {"requestId": str(number)}})
        await socket.send_str("{}")
        await eventually(lambda: len(dispatcher.held) == 3)
        for index in (2, 0, 0):
            dispatcher.release(index)
        assert [(await answer(socket))["header"]["requestId"] for _ in range(3)] == ["2", "0", "1"]
        assert (await closing(socket))[0] == 1000


@pytest.mark.feature("GW-24")
async def test_no_more_than_prefetch_requests_are_in_flight(http: Session, dispatcher: EchoDispatcher) -> None:
    async with http.ws_connect("/held") as socket:
        for number in range(10):
            await socket.send_json({"header": {"requestId": str(number)}})
        for done in range(10):
            await eventually(lambda expected=min(done + 4, 10): len(dispatcher.calls) == expected)  # type: ignore[misc]
            assert len(dispatcher.held) <= 4
            dispatcher.release()
            await answer(socket)


async def test_a_client_that_leaves_cancels_its_requests(http: Session, dispatcher: EchoDispatcher) -> None:
    async with http.ws_connect("/held") as socket:
        await socket.send_json({})  # the end of input is only "{}" itself
    async with http.ws_connect("/held") as socket:
        await socket.send_json({"data": []})
        await socket.send_json({"data": []})
        await eventually(lambda: len(dispatcher.held) == 2)
    await eventually(lambda: dispatcher.cancelled == 2, what="the cancellations")


async def test_streaming_endpoints_answer_once_per_document(http: Session) -> None:
    async with http.ws_connect("/") as socket:
        replies = [await ask(socket, {"execEndpoint": "/hello", "data": [{"text": "x"}], "header": {"requestId": "s"}})]
        replies += [await answer(socket) for _ in range(3)]
        assert [(reply["position"], reply["final"]) for reply in replies] == [(0, False), (1, False), (2, False), (3, True)]
        assert {reply["header"]["requestId"] for reply in replies} == {"s"}


async def test_a_message_says_whether_it_wants_a_stream(http: Session, dispatcher: EchoDispatcher) -> None:
    async with http.ws_connect("/") as socket:
        replies = [await ask(socket, {"execEndpoint": "/echo", "stream": True, "data": [{"text": "x"}]})]
        replies += [await answer(socket) for _ in range(3)]
        assert [reply["final"] for reply in replies] == [False, False, False, True], "any endpoint may be asked for a stream"
        whole = await ask(socket, {"execEndpoint": "/hello", "stream": False, "data": [{"text": "x"}]})
        assert "final" not in whole and whole["data"] == [{"text": "x"}]
        inside = await ask(socket, {"execEndpoint": "/echo", "data": [{"stream": True}]})
        assert "final" not in inside, "a document's own field says nothing"
        refused = await ask(socket, {"execEndpoint": "/echo", "stream": "yes"})
        assert refused["code"] == "INVALID_ARGUMENT" and "stream: must be true or false" in refused["detail"]


async def test_protobuf_requests(http: Session, dispatcher: EchoDispatcher) -> None:
    data = data_content([b"", b""])
    async with http.ws_connect("/", **BYTES) as socket:
        await socket.send_bytes(request("r1", data=data))
        reply = await answer_bytes(socket)
        assert (reply.header.request_id, reply.data, len(reply.routes)) == ("r1", data, 2)
        await socket.send_bytes(b"\x01")
        assert await closing(socket) == (1000, "")


@pytest.mark.parametrize("end", [b"\x00", b"\x01"])
async def test_both_bytes_end_the_input(http: Session, end: bytes) -> None:
    async with http.ws_connect("/", **BYTES) as socket:
        await socket.send_bytes(end)
        assert (await closing(socket))[0] == 1000


async def test_bad_protobuf_is_answered_and_the_socket_stays(http: Session) -> None:
    async with http.ws_connect("/", **BYTES) as socket:
        await socket.send_bytes(b"\xff\xff\xff")
        reply = await answer_bytes(socket)
        assert reply.header.status.code == 1
        assert "DataRequest" in reply.header.status.description
        await socket.send_bytes(request("r2"))
        assert (await answer_bytes(socket)).header.request_id == "r2"


@pytest.mark.feature("ER-03", "ER-04")
@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED])
async def test_in_bytes_unreachable_and_late_close_after_the_other_answers(http: Session, dispatcher: EchoDispatcher, code: Code) -> None:
    dispatcher.announce((*ENDPOINTS, EndpointInfo("/down")))
    dispatcher.statuses["/down"] = Status(code, "ä" * 200)
    async with http.ws_connect("/", **BYTES) as socket:
        await socket.send_bytes(request("slow", "/held"))
        await eventually(lambda: dispatcher.held)
        await socket.send_bytes(request("bad", "/down"))
        await eventually(lambda: len(dispatcher.calls) == 2)
        dispatcher.release()
        assert (await answer_bytes(socket)).header.request_id == "slow"
        code_sent, reason = await closing(socket)
        assert (code_sent, reason) == (1011, "ä" * 61)


async def test_an_executors_exception_does_not_close(http: Session, dispatcher: EchoDispatcher) -> None:
    dispatcher.statuses["/echo"] = Status(Code.EXECUTOR_ERROR, "ValueError('x')", "ValueError", ("x",), ("line",), "Enc")
    async with http.ws_connect("/", **BYTES) as socket:
        for number in range(2):
            await socket.send_bytes(request(str(number)))
            status = (await answer_bytes(socket)).header.status
            assert (status.code, status.exception.name, status.exception.executor) == (1, "ValueError", "Enc")


@pytest.mark.parametrize(("end", "waits"), [(b"\x00", True), (b"\x01", False)])
async def test_after_a_failure_a_client_of_jina_may_leave_first(http: Session, dispatcher: EchoDispatcher, end: bytes, waits: bool) -> None:
    dispatcher.statuses["/echo"] = Status(Code.EXECUTOR_ERROR, "ValueError('x')")
    async with http.ws_connect("/", protocols=("bytes",)) as socket:
        await socket.send_bytes(request("r1"))
        assert (await answer_bytes(socket)).header.status.code == 1
        await socket.send_bytes(end)
        if waits:
            with pytest.raises(TimeoutError):
                await socket.receive(0.1)
        assert (await closing(socket))[0] == 1000


async def test_a_frame_above_the_limit_closes_with_1009(http: Session) -> None:
    async with http.ws_connect("/") as socket:
        await socket.send_str("x" * 70_000)
        assert (await closing(socket))[0] == 1009


@pytest.mark.feature("GW-28")
async def test_dry_run_answers_every_message(http: Session, dispatcher: EchoDispatcher) -> None:
    async with http.ws_connect("/dry_run") as socket:
        assert await ask(socket, "x") == {"code": 0, "description": "", "exception": None}
        dispatcher.connected = False
        assert (await ask(socket, "x"))["code"] == 1
    async with http.ws_connect("/dry_run", **BYTES) as socket:
        await socket.send_bytes(b"")
        message = await socket.receive()
        assert pb.Status.FromString(message.data).code == 1


async def test_draining_answers_and_closes_with_1001(dispatcher: EchoDispatcher, gateway_settings: GatewaySettings) -> None:
    server: HttpServer = await serve_http(create_app(dispatcher, gateway_settings), gateway_settings, [(LOCAL, 0)])
    async with Session() as http, http.ws_connect(f"http://{LOCAL}:{server.ports[0]}/held") as socket:
        await socket.send_json({"header": {"requestId": "last"}})
        await eventually(lambda: dispatcher.held)
        stopping = asyncio.create_task(server.stop(10))
        await asyncio.sleep(0.05)
        dispatcher.release()
        assert (await answer(socket))["header"]["requestId"] == "last"
        assert (await closing(socket))[0] == 1001
        await asyncio.wait_for(stopping, 5)
