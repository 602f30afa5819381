"""Nothing that a client sends becomes a NATS header or a subject."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiohttp
import grpc
import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow.broker.errors import InvalidInput
from streamflow.broker.settings import BrokerSettings
from streamflow.client import Client

from .secured import LOCAL, PROTOCOLS, DataRequest, Secured, body, secured

MARK = "evilmark"
HEADERS = {
    "Nats-Msg-Id": f"{MARK}-id",
    "Nats-Rollup": "all",
    "Nats-TTL": "1s",
    "Nats-Expected-Last-Sequence": "0",
    "Nats-Schedule": "@every 1s",
    "Nats-Schedule-Target": f"sf.{MARK}.now.x",
    "X-Request-Id": f"{MARK}.>.$JS.API.STREAM.DELETE.x",
    "traceparent": f"00-{MARK}",
}
SUBJECT = re.compile(r"sf\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+\Z")


def hostile(flow: str) -> dict[str, Any]:
    said = body("a", {"Nats-Rollup": "all", "subject": f"$JS.API.STREAM.DELETE.sf_{flow}_upper"})
    return {**said, "header": {"requestId": f"{MARK} >\r\nNats-Rollup: all"}}


async def send_everything(gateway: Secured, flow: str) -> None:
    http, grpc_address = "{}:{}".format(*gateway.addresses["http"]), "{}:{}".format(*gateway.addresses["grpc"])
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        for path in ("/run", f"/{MARK}.%3E", "/%24JS.API.STREAM.PURGE.x"):
            async with session.post(f"http://{http}{path}", json=hostile(flow)) as response:
                assert response.status in (200, 404)
        async with session.ws_connect(f"ws://{LOCAL}:{gateway.addresses['websocket'][1]}/run") as socket:
            await socket.send_json(hostile(flow))
            await socket.receive_json(timeout=10)
    request = DataRequest()
    request.header.exec_endpoint, request.header.request_id = "/run", f"{MARK}.*\r\nNats-Rollup: all"
    async with grpc.aio.insecure_channel(grpc_address) as channel:
        call = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data", request_serializer=DataRequest.SerializeToString)
        metadata = [(name.lower(), value) for name, value in HEADERS.items() if "$" not in value]
        await call(request, metadata=metadata, timeout=10)


async def test_headers_and_names_of_clients_stay_inside_the_envelope(settings: BrokerSettings, flow_name: str) -> None:
    async with secured(settings, flow_name) as gateway:
        heard: list[tuple[str, str]] = []

        def hear(subject: bytes, _reply: bytes, header: bytes | None, _payload: bytes) -> None:
            heard.append((subject.decode(), (header or b"").decode()))

        await gateway.flow.bus.listen(f"sf.{flow_name}.>", hear)
        await gateway.flow.bus.listen(f"sf.reply.{flow_name}.>", hear)
        before = await gateway.sequence()
        await send_everything(gateway, flow_name)
        assert await gateway.sequence() == before + 3
        requests = [(subject, header) for subject, header in heard if ".upper.now." in subject]
        assert len(requests) == 3
        for subject, header in heard:
            assert SUBJECT.match(subject) and MARK not in subject + header, subject
            assert {line.partition(":")[0] for line in header.split("\r\n")[1:] if line} <= {"Nats-Msg-Id"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_header_that_cannot_be_read_is_told_to_who_sent_it(settings: BrokerSettings, flow_name: str, protocol: str) -> None:
    """With the id of the request: on a stream of many its client would not know whose answer it is, and wait for ever."""
    async with secured(settings, flow_name) as gateway:
        host, port = gateway.addresses[protocol]
        client = Client(host=host, port=port, protocol=protocol, asyncio=True)
        docs = DocList[TextDoc]([TextDoc(text="a"), TextDoc(text="b"), TextDoc(text="c")])
        for name in ("x-streamflow-consistency", "x-streamflow-keep"):
            with pytest.raises(InvalidInput, match=name):
                async with asyncio.timeout(10):
                    async for _ in client.post("/run", docs, request_size=1, headers={name: "bogus"}):
                        pass
        await client.close()
