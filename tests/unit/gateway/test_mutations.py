"""Damaged input, 500 cases by seed over all protocols: always an answer that says so, never a hang, never a dead server."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable

import aiohttp
import grpc
import msgpack

from streamflow.gateway.http_server import HttpServer
from streamflow.gateway.jina_wire import data_content, fill_struct
from streamflow.gateway.proto import shallow_pb2 as pb
from streamflow.gateway.proto import streamflow_pb2 as own

from .conftest import LOCAL
from .echoing import EchoDispatcher

SEED = 20
TIMEOUT_S = 20
CASES = 100
ALLOWED = {200, 404, 405, 413, 415, 422}
JSON_BODY = json.dumps(
    {
        "data": [{"id": "1", "text": "hello ä", "header": {"n": [1, 2.5e3, None]}}],
        "parameters": {"k": 5},
        "header": {"requestId": "r1", "targetExecutor": "enc", "timeout": 4000000000},
        "execEndpoint": "/echo",
        "targetExecutor": "enc",
    }
).encode()
SPLICES = (b"\x00", b"\xff\xfe", b'"', b"{", b"}", b"[", b"]", b":", b"1e999", b"null", b'"header":', b"\\ud800", b"\r\n", b"\x1a\x05")


def mutated(body: bytes, chance: random.Random) -> bytes:
    """`body` with one to four bytes flipped, cut, doubled or spliced in."""
    raw = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(raw) + 1)
        until = min(len(raw), at + chance.randint(1, 12))
        change = chance.randrange(5)
        if change == 0 and raw:
            raw[at % len(raw)] ^= 1 << chance.randrange(8)
        elif change == 1:
            del raw[at:until]
        elif change == 2:
            raw[at:at] = raw[at:until] * chance.randint(1, 3)
        elif change == 3:
            raw[at:at] = chance.choice(SPLICES)
        else:
            del raw[at:]
    return bytes(raw)


def cases(body: bytes, seed: int) -> list[bytes]:
    chance = random.Random(SEED + seed)
    return [mutated(body, chance) for _ in range(CASES)]


def proto_body() -> bytes:
    header = {"request_id": "r1", "exec_endpoint": "/echo", "target_executor": "enc"}
    request = pb.DataRequest(header=header, data=data_content([b"\n\x00"]))
    fill_struct(request.parameters, {"k": 5, "l": [1, "a", {"b": None}]})
    return bytes(request.SerializeToString())


def native_body() -> bytes:
    parameters = msgpack.packb({"k": 5, "l": [1, {"b": None}]})
    request = own.Request(request_id="r1", endpoint="/echo", content_type="application/json", body=b'{"data":[]}', parameters=parameters)
    return bytes(request.SerializeToString())


async def test_http_bodies(http: aiohttp.ClientSession) -> None:
    for number, body in enumerate(cases(JSON_BODY, 1)):
        path = ("/echo", "/post", "/hello")[number % 3]
        async with http.post(path, data=body, headers={"content-type": "application/json"}) as response:
            assert response.status in ALLOWED, (number, body)
            text = await response.read()
            if response.content_type == "application/json":
                assert ("detail" in json.loads(text)) == (response.status != 200)
    await still_serves(http)


async def test_http_messages_down_to_the_request_line(http: aiohttp.ClientSession, http_server: HttpServer) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Request-Id: r1\r\nX-Streamflow-Timeout-Ms: 900\r\n"
    message = head + b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(JSON_BODY), JSON_BODY)
    for number, raw in enumerate(cases(message, 2)):
        reader, writer = await asyncio.open_connection(LOCAL, http_server.ports[0])
        writer.write(raw)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), TIMEOUT_S)
        assert not answer or answer.startswith(b"HTTP/1.1 "), (number, raw)
        assert b" 500 " not in answer.split(b"\r\n")[0], (number, raw)
        writer.close()
        await writer.wait_closed()
    await still_serves(http)


async def still_serves(http: aiohttp.ClientSession) -> None:
    async with http.post("/echo", json={"data": []}) as response:
        assert response.status == 200


async def exchange(http: aiohttp.ClientSession, body: bytes, seed: int, protocol: str, is_end: Callable[[bytes], bool]) -> None:
    """Send the damaged frames over one socket; each is answered on that same socket."""
    async with http.ws_connect("/", protocols=(protocol,)) as socket:
        for number, frame in enumerate(cases(body, seed)):
            if is_end(frame):
                continue
            if protocol == "json" and number % 2 and frame.isascii():
                await socket.send_str(frame.decode())
            else:
                await socket.send_bytes(frame)
            message = await socket.receive(timeout=TIMEOUT_S)
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), (number, frame, message)


async def test_websocket_json_frames(http: aiohttp.ClientSession) -> None:
    await exchange(http, JSON_BODY, 3, "json", lambda frame: b"".join(frame.split()) in (b"{}", b"\x00", b"\x01"))


async def test_websocket_protobuf_frames(http: aiohttp.ClientSession) -> None:
    await exchange(http, proto_body(), 4, "bytes", lambda frame: frame.strip() in (b"{}", b"\x00", b"\x01"))


async def test_grpc_messages(channel: grpc.aio.Channel, dispatcher: EchoDispatcher) -> None:
    unary = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")
    own_unary = channel.unary_unary("/streamflow.v1.Streamflow/Unary")
    for number, (jina_raw, native_raw) in enumerate(zip(cases(proto_body(), 5), cases(native_body(), 6), strict=True)):
        answer = pb.DataRequest.FromString(await unary(jina_raw, timeout=TIMEOUT_S))
        assert answer.header.request_id, (number, jina_raw)
        response = own.Response.FromString(await own_unary(native_raw, timeout=TIMEOUT_S))
        assert response.request_id, (number, native_raw)


async def test_a_grpc_stream_of_damaged_messages(channel: grpc.aio.Channel, dispatcher: EchoDispatcher) -> None:
    sent = cases(proto_body(), 7)
    call = channel.stream_stream("/jina.JinaRPC/Call")(sent, timeout=TIMEOUT_S)
    answers = [pb.DataRequest.FromString(raw) async for raw in call]
    assert len(answers) == len(sent)
    assert all(answer.header.request_id for answer in answers)
