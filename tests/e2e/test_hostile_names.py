"""Names that a client chose to hurt, in every place that takes one: refused or echoed, and the broker sees none of them (P30)."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import grpc
import msgpack
import nats
import pytest

from streamflow.gateway.proto import shallow_pb2 as pb
from streamflow.gateway.proto import streamflow_pb2 as own
from tests.chaos.fuzzing import CLEAN_HTTP, OWN_UNARY, Target, serve, unharmed

from .checker import stream_states
from .executors.steps import Item
from .programs import Programs
from .wires import UNARY, as_json, as_message

DELETE = "$JS.API.STREAM.DELETE.sf_fuzz_one"
NAMES = [
    ".", "..", "*", ">", "sf.fuzz.one.now.>", "sf.>", "_INBOX.>", " ", "a b", "\t", "a\r\nb", "\r\nNats-Msg-Id: 1", "\n", "\x00", "a\x00b",
    DELETE, "$JS.API.STREAM.PURGE.sf_fuzz_one", "$KV.sf_fuzz.current", "+ACK", "-NAK", "PUB a 1\r\nx\r\n", "x" * 10_000, "." * 300,
    "\u00fc" * 200, "\u4e16\u754c", "\U0001f600", "\u202e\u2028", "../../etc/passwd", "%00", "%2e%2e", "one/rep-0", "one",
    ".*", "(", "(a+)+$", "[", "{}", "null", "'; --", "__class__", "\x7f",
]  # fmt: skip
DOCS = [Item(id="d", text="t")]
# What may pass over the broker while the flow serves: our subjects, inboxes, acks, pulls and direct gets; nothing else.
GRAMMAR = re.compile(
    r"sf\.[A-Za-z0-9_-]{1,64}\.(ctl\.(announce|hello|cancel|graph)|[A-Za-z0-9_-]{1,64}\.(now|bulk)\.[A-Za-z0-9_-]{1,64})"
    r"|sf\.reply\.fuzz\.[a-z0-9]+\.[a-z0-9]+|sf\.fuzz\.blob\.[0-9a-f]{32}\.\d+|sf\.fuzz\.dead\.(one|two)"
    r"|_INBOX\.[A-Za-z0-9]+(\.[A-Za-z0-9]+)?|\$JS\.ACK\.sf_fuzz_(one|two)\.now(\.\d+){5}"
    r"|\$JS\.API\.CONSUMER\.MSG\.NEXT\.sf_fuzz_(one|two)\.(now|bulk)|\$JS\.API\.STREAM\.INFO\.KV_sf_fuzz"
    r"|\$JS\.API\.DIRECT\.GET\.[A-Za-z_]+(\.[A-Za-z0-9_$.-]+)?|\$KV\.sf_fuzz\.[A-Za-z0-9_.-]+"
)


@pytest.fixture(scope="module")
def target(module_programs: Programs) -> Target:
    return serve(module_programs)


@asynccontextmanager
async def untouched(target: Target) -> AsyncIterator[None]:
    """The streams, their settings and their messages are the same after the block, and every subject meanwhile followed the grammar."""
    before = {name: (state["config"], state["messages"]) for name, state in (await stream_states(target.broker_url)).items()}
    subjects: set[str] = set()

    async def heard(message: Any) -> None:
        subjects.add(message.subject)

    async with unharmed(target):
        spy = await nats.connect(target.broker_url)
        await spy.subscribe(">", cb=heard)
        await spy.flush()
        yield
        await spy.drain()
    after = {name: (state["config"], state["messages"]) for name, state in (await stream_states(target.broker_url)).items()}
    assert after == before
    assert any(subject.startswith("sf.fuzz.one.now.") for subject in subjects), "nothing was heard: the test would not notice"
    strange = [subject for subject in subjects if not GRAMMAR.fullmatch(subject)]
    assert not strange, strange


def places(name: str) -> list[dict[str, Any]]:
    """JSON requests with `name` in each place of the body."""
    base = as_json(DOCS, "/run")
    return [
        {**base, "execEndpoint": name},
        {**base, "targetExecutor": name},
        {**base, "requestId": name},
        {**base, "header": {"requestId": name}},
        {**base, "header": {"execEndpoint": name, "targetExecutor": name, "request_id": name}},
        {**base, "parameters": {name: name, f"{name}__mark": name, f"one__{name}": 1}},
        {**base, "data": [{"id": name, "text": name}]},
    ]


async def test_http_bodies_and_paths(target: Target) -> None:
    url = f"http://{target.addresses['http']}"
    statuses = []
    async with untouched(target), aiohttp.ClientSession() as session:
        for name in NAMES:
            for body in places(name):
                for path in ("/run", "/post"):
                    async with session.post(url + path, json=body) as response:
                        answer = await response.json()
                        statuses.append(response.status)
                        assert response.status in CLEAN_HTTP, (name, path, body, answer)
                        check_echo(answer, body.get("requestId"))
            async with session.post(f"{url}/{quote(name, safe='')}", json=as_json(DOCS, "/run")) as response:
                assert response.status in CLEAN_HTTP, (name, await response.text())
    assert statuses.count(200) > len(statuses) / 4


def check_echo(answer: dict[str, Any], sent: str | None) -> None:
    if sent and len(sent) <= 512:
        assert answer["header"]["requestId"] == sent


async def test_http_headers_as_raw_bytes(target: Target) -> None:
    """What no decent client library would send."""
    body = json.dumps(as_json(DOCS, "/run")).encode()
    async with untouched(target):
        for name in NAMES:
            raw = name.encode()
            for header in (
                b"X-Request-Id",
                b"traceparent",
                b"tracestate",
                b"X-Streamflow-Timeout-Ms",
                b"Nats-Msg-Id",
                b"Host",
                b"Content-Type",
            ):
                status = await send_raw(target, b"POST /run", header + b": " + raw, body)
                assert status in {*CLEAN_HTTP, 0}, (header, name, status)
            status = await send_raw(target, b"POST /" + raw, b"x: y", body)
            assert status in {*CLEAN_HTTP, 0}, ("path", name, status)


async def send_raw(target: Target, start: bytes, header: bytes, body: bytes) -> int:
    """The status of the answer, 0 when the gateway only closed the connection."""
    host, port = target.addresses["http"].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(
            start + b" HTTP/1.1\r\nHost: h\r\n" + header + b"\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        async with asyncio.timeout(10):
            line = await reader.readline()
            await reader.read()
        return int(line.split(b" ")[1]) if line else 0
    except ConnectionError:
        return 0
    finally:
        writer.close()


async def test_grpc_fields_and_metadata(target: Target) -> None:
    async with untouched(target), grpc.aio.insecure_channel(target.addresses["grpc"]) as channel:
        for name in NAMES:
            for header in ({"request_id": name}, {"exec_endpoint": name}, {"target_executor": name}):
                message = as_message(DOCS, "/run")
                for field, value in header.items():
                    setattr(message.header, field, value)
                message.parameters.update({name: name})
                answer = pb.DataRequest.FromString(await channel.unary_unary(UNARY)(message.SerializeToString(), timeout=10))
                assert answer.header.status.exception.name in ("", "InvalidInput", "NotFound"), (header, answer.header)
                if len(name) <= 512 and "request_id" in header:
                    assert answer.header.request_id == name
            await native(channel, name)
            for key in ("traceparent", "tracestate", "x-request-id", "nats-msg-id"):
                if name.isascii() and name.isprintable() and len(name) < 8000:
                    message = as_message(DOCS, "/run")
                    await channel.unary_unary(UNARY)(message.SerializeToString(), metadata=((key, name.strip()),), timeout=10)


async def native(channel: grpc.aio.Channel, name: str) -> None:
    for fields in ({"request_id": name}, {"endpoint": name}, {"target_executor": name}, {"content_type": name}, {"accept": name}):
        request = own.Request(endpoint="/run", trace={name: name}, parameters=msgpack.packb({name: name}))
        for field, value in fields.items():
            setattr(request, field, value)
        answer = own.Response.FromString(await channel.unary_unary(OWN_UNARY)(request.SerializeToString(), timeout=10))
        said = msgpack.unpackb(answer.status)[2] if answer.status else ""
        assert said in ("", "InvalidInput", "NotFound"), (fields, said)


async def test_websocket_messages_and_paths(target: Target) -> None:
    url = f"ws://{target.addresses['websocket']}"
    async with untouched(target), aiohttp.ClientSession() as session:
        for name in NAMES:
            async with session.ws_connect(f"{url}/{quote(name[:1000], safe='')}") as socket:
                for body in (as_json(DOCS, "/run"), *places(name)):
                    await socket.send_json(body)
                    answer = await socket.receive_json(timeout=10)
                    assert answer.get("code", "OK") in ("OK", "INVALID_ARGUMENT", "NOT_FOUND"), (body, answer)
                    check_echo(answer, body.get("requestId"))
            async with session.ws_connect(f"{url}/", protocols=["bytes"]) as socket:
                await socket.send_bytes(as_message(DOCS, "/run", request_id=name, target_executor=name).SerializeToString())
                answer = pb.DataRequest.FromString(await socket.receive_bytes(timeout=10))
                assert answer.header.status.exception.name in ("", "InvalidInput", "NotFound"), answer.header
