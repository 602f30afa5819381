"""Streams of documents, read by hand over every protocol and by our client. Each way yields documents as dicts as they come; leaving the
loop leaves the stream as a client of that protocol does."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from streamflow import Client
from streamflow.gateway.proto import shallow_pb2 as pb

from .executors.talkers import Word
from .programs import Program, Programs, addresses_of, flow_file

TALKERS = Path(__file__).with_name("executors") / "talkers.py"
STREAM_DOC = "/jina.JinaSingleDocumentRequestRPC/stream_doc"

Docs = AsyncGenerator[dict[str, Any], None]
Way = Callable[..., Docs]


class StreamFailed(Exception):
    """The server said how the stream failed: a code, or the text where the protocol has none."""


def executor(name: str, kind: str, **options: Any) -> dict[str, Any]:
    replicas = options.pop("replicas", 1)
    return {"name": name, "replicas": replicas, "uses": {"jtype": kind, "py_modules": [str(TALKERS)], "with": options}}


async def sse(addresses: dict[str, str], endpoint: str, word: str, **parameters: Any) -> Docs:
    body = {"data": [{"text": word}], "parameters": parameters}
    timeout = aiohttp.ClientTimeout(total=100)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"http://{addresses['http']}{endpoint}", json=body) as response,
    ):
        if response.status != 200:
            raise StreamFailed((await response.json())["code"])
        name = ""
        async for raw in response.content:
            line = raw.decode().strip()
            if line.startswith("event: "):
                name = line[7:]
                if name == "end":
                    return
            elif line.startswith("data: ") and name == "error":
                raise StreamFailed(json.loads(line[6:])["code"])
            elif line.startswith("data: "):
                yield json.loads(line[6:])
    raise AssertionError("the stream ended without an end")


async def websocket(addresses: dict[str, str], endpoint: str, word: str, **parameters: Any) -> Docs:
    message = {"execEndpoint": endpoint, "stream": True, "data": [{"text": word}], "parameters": parameters}
    async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://{addresses['websocket']}/") as socket:
        await socket.send_json(message)
        position, final = 0, False
        while not final:
            answer = await socket.receive_json(timeout=60)
            if "code" in answer:
                raise StreamFailed(answer["code"])
            assert answer["position"] == position
            position, final = position + 1, answer["final"]
            for doc in answer["data"]:
                yield doc


async def jina_grpc(addresses: dict[str, str], endpoint: str, word: str, **parameters: Any) -> Docs:
    """Jina's own wire, documents in docarray's own messages."""
    request = pb.SingleDocumentRequest(header=pb.Header(exec_endpoint=endpoint), document=Word(text=word).to_protobuf().SerializeToString())
    if parameters:
        request.parameters.update(parameters)
    async with grpc.aio.insecure_channel(addresses["grpc"]) as channel:
        call = channel.unary_stream(STREAM_DOC)(request.SerializeToString(), timeout=100)
        async for raw in call:
            answer = pb.SingleDocumentRequest.FromString(raw)
            if answer.header.status.code:
                raise StreamFailed(answer.header.status.exception.name)
            doc = Word.from_protobuf(_document(answer.document))
            yield {"text": doc.text, "number": int(doc.number), "made": doc.made}


def _document(raw: bytes) -> Any:
    from docarray.proto import DocProto  # protobuf generation is chosen when it is imported

    return DocProto.FromString(raw)


def our_client(protocol: str) -> Way:
    async def ask(addresses: dict[str, str], endpoint: str, word: str, **parameters: Any) -> Docs:
        scheme = {"websocket": "ws"}.get(protocol, protocol)
        async with Client(host=f"{scheme}://{addresses[protocol]}", asyncio=True) as client:
            stream = client.stream_doc(endpoint, Word(text=word), parameters=parameters, return_type=Word)
            try:
                async for doc in stream:
                    yield {"text": doc.text, "number": doc.number, "made": doc.made}
            finally:
                await stream.aclose()  # type: ignore[attr-defined]

    return ask


WAYS: dict[str, Way] = {
    "SSE": sse,
    "WebSocket": websocket,
    "Jina's gRPC": jina_grpc,
    "our client, gRPC": our_client("grpc"),
    "our client, HTTP": our_client("http"),
    "our client, WebSocket": our_client("websocket"),
}


@dataclass
class Served:
    program: Program
    addresses: dict[str, str]
    ledger: Path

    @property
    def broker_url(self) -> str:
        return self.program.wait_for(r'"broker": "(nats://[^"]+)"')[1]

    def pid_of(self, name: str) -> int:
        """Of the worker that started last."""
        return int([line.split()[1] for line in self.ledger.read_text().splitlines() if line.startswith(f"start-{name} ")][-1])

    def worker_pids(self) -> list[int]:
        return [int(line.split()[1]) for line in self.ledger.read_text().splitlines() if line.startswith("start-")]

    def lines(self, what: str, word: str) -> list[list[str]]:
        """`[pid, attempt, number, Unix s]` of each line of the ledger."""
        found = [line.split() for line in self.ledger.read_text().splitlines()]
        return [line[1:5] for line in found if line[0] == what and line[5:] == [word]]


def serve(
    programs: Programs, name: str, *executors: dict[str, Any], ack_wait_s: float = 5.0, max_deliver: int = 5, talkers: int = 1
) -> Served:
    """A flow that begins with a `Talker`."""
    ledger = programs.folder / "ledger"
    talker = executor("talk", "Talker", ledger=str(ledger), replicas=talkers)
    file = flow_file(programs.folder, name, [talker, *executors], ("grpc", "http", "websocket"))
    program = programs.streamflow(
        "flow", "--uses", str(file), STREAMFLOW_ACK_WAIT_S=str(ack_wait_s), STREAMFLOW_MAX_DELIVER=str(max_deliver)
    )
    return Served(program, addresses_of(program), ledger)


async def read(way: Way, served: Served, endpoint: str, word: str, **parameters: Any) -> list[dict[str, Any]]:
    async with aclosing(way(served.addresses, endpoint, word, **parameters)) as docs:
        return [doc async for doc in docs]
