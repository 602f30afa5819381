"""A gateway's protocols spoken by hand: Jina's gRPC services with docarray's own messages, WebSockets in both forms, plain HTTP.

Each way takes documents and gives the texts of the answer, in order, so that they can be compared.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import aiohttp
import grpc
from docarray import BaseDoc, DocList

from streamflow import Client
from streamflow.gateway.proto import shallow_pb2 as pb

from .executors.steps import Item

Answers = list[dict[str, Any]]
Way = Callable[[dict[str, str], list[Item], str], Awaitable[Answers]]

UNARY = "/jina.JinaSingleDataRequestRPC/process_single_data"
STREAM = "/jina.JinaRPC/Call"


def as_json(docs: Iterable[BaseDoc], endpoint: str, **header: Any) -> dict[str, Any]:
    return {"data": [json.loads(doc.json()) for doc in docs], "execEndpoint": endpoint, **({"header": header} if header else {})}


def as_message(docs: Sequence[BaseDoc], endpoint: str, **header: Any) -> pb.DataRequest:
    """Jina's DataRequestProto; the documents are docarray's own DocListProto."""
    serialized = DocList[type(docs[0])](docs).to_protobuf().SerializeToString()  # type: ignore[misc, operator]  # known at run time only
    content = pb.DataContent(docs=serialized).SerializeToString()
    return pb.DataRequest(header=pb.Header(exec_endpoint=endpoint, **header), data=content)


def from_message(raw: bytes) -> Answers:
    answer = pb.DataRequest.FromString(raw)
    assert answer.header.status.code == 0, answer.header.status.description
    content = pb.DataContent.FromString(answer.data)
    message = DocList[Item].from_protobuf(_doc_list(content.docs))
    return plain(message)


def _doc_list(raw: bytes) -> Any:
    from docarray.proto import DocListProto  # protobuf generation is chosen when it is imported

    return DocListProto.FromString(raw)


def plain(docs: Iterable[Item]) -> Answers:
    return [{"id": doc.id, "text": doc.text, "number": int(doc.number), "tags": list(doc.tags)} for doc in docs]


def from_json(answer: dict[str, Any]) -> Answers:
    assert not answer["header"]["status"], answer
    return [{name: doc[name] for name in ("id", "text", "number", "tags")} for doc in answer["data"]]


async def http(addresses: dict[str, str], docs: list[Item], endpoint: str) -> Answers:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{addresses['http']}{endpoint}", json=as_json(docs, endpoint)) as response,
    ):
        assert response.status == 200, await response.text()
        return from_json(await response.json())


async def websocket_json(addresses: dict[str, str], docs: list[Item], endpoint: str) -> Answers:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://{addresses['websocket']}/") as socket:
        await socket.send_json(as_json(docs, endpoint))
        return from_json(await socket.receive_json(timeout=20))


async def websocket_bytes(addresses: dict[str, str], docs: list[Item], endpoint: str) -> Answers:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://{addresses['websocket']}/", protocols=["bytes"]) as socket:
        await socket.send_bytes(as_message(docs, endpoint).SerializeToString())
        return from_message(await socket.receive_bytes(timeout=20))


async def grpc_unary(addresses: dict[str, str], docs: list[Item], endpoint: str) -> Answers:
    async with grpc.aio.insecure_channel(addresses["grpc"]) as channel:
        return from_message(await channel.unary_unary(UNARY)(as_message(docs, endpoint).SerializeToString(), timeout=20))


async def grpc_stream(addresses: dict[str, str], docs: list[Item], endpoint: str) -> Answers:
    """One request per document on one stream; answers come as they are ready."""
    requests = [as_message([doc], endpoint).SerializeToString() for doc in docs]
    async with grpc.aio.insecure_channel(addresses["grpc"]) as channel:
        stream = channel.stream_stream(STREAM)(iter(requests), timeout=20)
        found = [one async for raw in stream for one in from_message(raw)]
    order = {doc.id: at for at, doc in enumerate(docs)}
    return sorted(found, key=lambda one: order[one["id"]])


def our_client(protocol: str) -> Way:
    async def ask(addresses: dict[str, str], docs: list[Item], endpoint: str) -> Answers:
        return await asyncio.to_thread(_ask, f"{'ws' if protocol == 'websocket' else protocol}://{addresses[protocol]}", docs, endpoint)

    return ask


def _ask(host: str, docs: list[Item], endpoint: str) -> Answers:
    with Client(host=host) as client:
        return plain(client.post(endpoint, DocList[Item](docs), request_size=3, results_in_order=True, return_type=DocList[Item]))


WAYS: dict[str, Way] = {
    "HTTP": http,
    "WebSocket JSON": websocket_json,
    "WebSocket bytes": websocket_bytes,
    "gRPC unary": grpc_unary,
    "gRPC stream": grpc_stream,
    "our client, gRPC": our_client("grpc"),
    "our client, HTTP": our_client("http"),
    "our client, WebSocket": our_client("websocket"),
}
