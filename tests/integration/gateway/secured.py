"""A whole gateway process inside the test's loop, on all protocols, before a flow of one executor; and callers with all sorts of tokens."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc
from docarray import DocList
from docarray.documents.legacy import LegacyDocument
from docarray.proto import DocListProto
from google.protobuf.message_factory import GetMessageClass

from streamflow import Executor, requests
from streamflow.broker import subjects
from streamflow.broker.flow import Graph, Node
from streamflow.broker.lifecycle import Stop
from streamflow.broker.settings import BrokerSettings, GatewaySettings
from streamflow.gateway.proto.registry import POOL
from streamflow.gateway.service import GatewayProcess
from tests.running import Running, running
from tests.waiting import eventually

EXECUTOR = "upper"
PROTOCOLS = ("http", "websocket", "grpc")
LOCAL = "127.0.0.1"
DataRequest: Any = GetMessageClass(POOL.FindMessageTypeByName("jina.DataRequestProto"))


class Upper(Executor):
    holds: asyncio.Event

    @requests(on="/run")
    async def run(self, docs: DocList[LegacyDocument], parameters: dict[str, Any], **kwargs: Any) -> DocList[LegacyDocument]:
        if parameters.get("hold"):
            await Upper.holds.wait()
        for doc in docs:
            doc.text = (doc.text or "").upper()
        return docs


@dataclass(frozen=True)
class Answer:
    """What a caller saw: an HTTP status (of a WebSocket: of its handshake, or of the message) or the gRPC status' name."""

    status: int | str
    text: str = ""
    retry_after: str = ""
    texts: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return self.status in (200, "OK")


@dataclass
class Secured:
    flow: Running
    addresses: dict[str, tuple[str, int]]

    async def sequence(self) -> int:
        """How much was ever published to the executor."""
        info = await self.flow.bus.api(f"STREAM.INFO.{subjects.work_stream(self.flow.graph.flow, EXECUTOR)}")
        return int(info["state"]["last_seq"])

    async def ask(self, protocol: str, token: str = "", text: str = "a", **more: Any) -> Answer:
        authorization = {"authorization": f"Bearer {token}"} if token else {}
        return await ASK[protocol](self.addresses[protocol], authorization, text, more)


def body(text: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": [{"text": text}], "parameters": dict(parameters), "execEndpoint": "/run"}


async def _http(address: tuple[str, int], headers: dict[str, str], text: str, parameters: Mapping[str, Any]) -> Answer:
    url = f"http://{address[0]}:{address[1]}/run"
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=body(text, parameters)) as response:
        said = await response.json()
        texts = [each["text"] for each in said["data"]] if response.status == 200 else []
        return Answer(response.status, said.get("detail") or "", response.headers.get("retry-after", ""), texts)


async def _websocket(address: tuple[str, int], headers: dict[str, str], text: str, parameters: Mapping[str, Any]) -> Answer:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect(f"ws://{address[0]}:{address[1]}/run", headers=headers) as socket:
                await socket.send_json(body(text, parameters))
                said = await socket.receive_json(timeout=10)
        except aiohttp.WSServerHandshakeError as error:
            return Answer(error.status, error.message)
    code = said.get("code") or ""
    return Answer(code or 200, said.get("detail") or "", "", [each["text"] for each in said["data"]])


async def _grpc(address: tuple[str, int], headers: dict[str, str], text: str, parameters: Mapping[str, Any]) -> Answer:
    request = DataRequest()
    request.header.exec_endpoint = "/run"
    request.parameters.update(dict(parameters))
    request.data.docs.MergeFromString(DocList[LegacyDocument]([LegacyDocument(text=text)]).to_protobuf().SerializeToString())
    async with grpc.aio.insecure_channel(f"{address[0]}:{address[1]}") as channel:
        call = channel.unary_unary(
            "/jina.JinaSingleDataRequestRPC/process_single_data",
            request_serializer=DataRequest.SerializeToString,
            response_deserializer=DataRequest.FromString,
        )
        try:
            answer = await call(request, metadata=tuple(headers.items()), timeout=20)
        except grpc.aio.AioRpcError as error:
            trailer = dict(error.trailing_metadata() or ())
            return Answer(error.code().name, error.details() or "", str(trailer.get("retry-after", "")))
    sent = DocListProto.FromString(answer.data.docs.SerializeToString())
    return Answer("OK", "", "", [str(doc.text) for doc in DocList[LegacyDocument].from_protobuf(sent)])


ASK: dict[str, Callable[..., Any]] = {"http": _http, "websocket": _websocket, "grpc": _grpc}


@asynccontextmanager
async def secured(
    settings: BrokerSettings, flow_name: str, *, probe_tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[Secured]:
    """A gateway with `options` of `GatewaySettings`, serving on free ports."""
    Upper.holds = asyncio.Event()
    async with running(settings, Graph(flow_name, (Node(EXECUTOR),)), {EXECUTOR: Upper}) as flow:
        listen = [{"protocol": protocol, "host": options.pop("host", LOCAL), "port": 0} for protocol in PROTOCOLS]
        gateway = GatewaySettings(**{**settings.model_dump(), **options}, flow=flow_name, listen=listen)
        found: dict[str, tuple[str, int]] = {}
        stop = Stop()
        process = GatewayProcess(gateway, lambda state, message="", **facts: found.update(facts.get("addresses", {})), check_schemas=False)
        task = asyncio.create_task(process.main(stop))
        await eventually(lambda: found or task.done(), what="the gateway listens")
        if task.done():
            task.result()
        made = Secured(flow, {protocol: (LOCAL, port) for protocol, (_, port) in found.items()})
        await _until_served(made, probe_tls)
        try:
            yield made
        finally:
            Upper.holds.set()
            stop.set("test over")
            await task


async def _until_served(made: Secured, tls: ssl.SSLContext | None) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls or True)) as session:
        host, port = made.addresses["http"]
        while True:
            async with session.get(f"{'https' if tls else 'http'}://{host}:{port}/readyz") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.01)
