"""Mutated requests against a served flow, over each protocol. Every one must get a clean answer, and the flow must be none the worse."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc
import msgpack
import psutil

from streamflow.gateway.proto import shallow_pb2 as pb
from streamflow.gateway.proto import streamflow_pb2 as own
from tests.e2e.checker import nothing_left
from tests.e2e.programs import Program, Programs, broker_of, flow_file, step
from tests.e2e.wires import STREAM, UNARY, as_json, as_message, http

from .documents import DOCS, SHAPES_JSON, broken_columns, broken_documents
from .mutations import json_bodies, messages

AT_ONCE = 8
HANG_S = 10.0
CLEAN_HTTP = {200, 400, 404, 405, 408, 413, 415, 422, 431}
CLEAN_GRPC = {"INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
CLEAN_CLOSES = {1000, 1002, 1003, 1007, 1009}
CLEAN_ERRORS = {"InvalidInput", "NotFound", "DeadlineExceeded", "TooLarge", "Cancelled"}
BAD_WORDS = (
    "failed in streamflow itself",
    "failed inside the gateway",
    "was never retrieved",
    "Traceback",
    "quarantined",
    "pending!",
    "starting it again",
)
OWN_UNARY, OWN_CALL = "/streamflow.v1.Streamflow/Unary", "/streamflow.v1.Streamflow/Call"


@dataclass
class Tally:
    """How many got which answer; `unclean` holds those that nobody should get, with what was sent."""

    answers: Counter[str] = field(default_factory=Counter)
    unclean: list[tuple[str, bytes]] = field(default_factory=list)

    def note(self, answer: str, clean: bool, body: bytes) -> None:
        self.answers[answer] += 1
        if not clean:
            self.unclean.append((answer, body))

    def __str__(self) -> str:
        return ", ".join(f"{number} {answer}" for answer, number in self.answers.most_common())


@dataclass
class Target:
    program: Program
    addresses: dict[str, str]
    broker_url: str


def serve(programs: Programs) -> Target:
    executors = [step("one", replicas=2, mark="1"), step("two", mark="2")]
    program, addresses = programs.flow(flow_file(programs.folder, "fuzz", executors, ("grpc", "http", "websocket")))
    return Target(program, addresses, broker_of(program))


@asynccontextmanager
async def unharmed(target: Target) -> AsyncIterator[None]:
    """After the block: the same processes, nothing open, nothing unsettled, no fault in the log, and right answers."""
    before = processes(target)
    yield
    await nothing_left(target.broker_url)
    assert await http(target.addresses, DOCS[:1], "/run") == [{"id": "d0", "text": "some text12", "number": 0, "tags": ["a", "b"]}]
    await all_answered(target)
    assert processes(target).keys() == before.keys(), "a process died"
    faults = [line for line in target.program.output.splitlines() if any(word in line for word in BAD_WORDS)]
    assert not faults, f"{len(faults)} faults, such as {faults[0][:2000]}"
    for pid, files in processes(target).items():
        assert files < before[pid] + 50, f"process {pid} holds {files} descriptors, {before[pid]} before"


def processes(target: Target) -> dict[int, int]:
    """Open files by process."""
    return {process.pid: process.num_fds() for process in target.program.family() if process.status() != psutil.STATUS_ZOMBIE}


async def all_answered(target: Target) -> None:
    """The gateway keeps no request open."""
    async with aiohttp.ClientSession() as session:
        for _ in range(100):
            async with session.get(f"http://{target.addresses['http']}/status") as response:
                found = (await response.json())["jina"]["open-requests"]
            if found == "0":
                return
            await asyncio.sleep(0.05)
    raise AssertionError(f"{found} requests are open in the gateway although nobody waits")


async def spread(bodies: Iterable[bytes], ask: Callable[[bytes], Awaitable[None]]) -> None:
    """`ask` each body, `AT_ONCE` at a time."""
    todo = iter(bodies)

    async def client() -> None:
        for body in todo:
            async with asyncio.timeout(HANG_S):
                await ask(body)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))


# HTTP


def valid_json() -> list[dict[str, Any]]:
    parameters = {"one__mark": "x", "nested": {"a": [1, 2.5, None, True]}}
    plain = as_json(DOCS, "/run")
    named = as_json(DOCS, "/run", requestId="r", targetExecutor="one")
    return [
        plain,
        {**plain, "parameters": parameters},
        named,
        {"data": plain["data"][0]},
        *[{"data": SHAPES_JSON, "execEndpoint": "/shapes"}] * 3,
    ]


async def fuzz_http(target: Target, seed: int, number: int) -> Tally:
    tally = Tally()
    url = f"http://{target.addresses['http']}"
    paths = ("/run", "/shapes", "/post", "/nowhere")

    async with aiohttp.ClientSession() as session:

        async def ask(body: bytes) -> None:
            path = "/shapes" if b"vector" in body else paths[len(body) % len(paths)]
            async with session.post(url + path, data=io.BytesIO(body), headers={"content-type": "application/json"}) as response:
                answer = await response.read()
                clean = response.status in CLEAN_HTTP and _explained(response.status, answer)
                tally.note(str(response.status), clean, body)

        await spread(json_bodies(seed, number, valid_json()), ask)
    return tally


def _explained(status: int, answer: bytes) -> bool:
    said = json.loads(answer)
    return bool(said.get("detail")) if status != 200 else isinstance(said.get("data"), list)


# gRPC


def valid_messages() -> list[bytes]:
    plain = as_message(DOCS, "/run", request_id="r", target_executor="one")
    rich = as_message(DOCS[:1], "/run")
    rich.parameters.update({"a": [1, {"b": None}], "one__mark": "x"})
    bare = pb.DataRequest(header=pb.Header(exec_endpoint="/run"))
    return [message.SerializeToString() for message in (plain, rich, bare)]


def valid_own() -> list[bytes]:
    body = json.dumps(as_json(DOCS, "/run")["data"]).encode()
    request = own.Request(
        request_id="r", endpoint="/run", parameters=msgpack.packb({"a": [1, {"b": None}]}), trace={"traceparent": "00-1-2-01"}
    )
    request.content_type, request.body = "application/json", body
    bare = own.Request(endpoint="/run", accept="application/vnd.streamflow.columns")
    return [request.SerializeToString(), bare.SerializeToString()]


async def fuzz_grpc(target: Target, seed: int, number: int) -> Tally:
    """Jina's unary and stream methods and our own, a quarter each."""
    tally = Tally()
    jina = valid_messages(), broken_documents, _jina_said
    ours = valid_own(), broken_columns, _own_said
    ways = ((UNARY, False, *jina), (STREAM, True, *jina), (OWN_UNARY, False, *ours), (OWN_CALL, True, *ours))
    async with grpc.aio.insecure_channel(target.addresses["grpc"]) as channel:
        for at, (method, stream, valid, inner, judge) in enumerate(ways):
            await spread(messages(seed + at, number // 4, valid, inner), _asker(channel, method, stream, judge, tally))
    return tally


def _asker(
    channel: grpc.aio.Channel, method: str, stream: bool, judge: Callable[[bytes], str], tally: Tally
) -> Callable[[bytes], Awaitable[None]]:
    async def ask(body: bytes) -> None:
        try:
            if stream:
                answers = [raw async for raw in channel.stream_stream(method)(iter([body]), timeout=HANG_S)]
            else:
                answers = [await channel.unary_unary(method)(body, timeout=HANG_S)]
        except grpc.aio.AioRpcError as error:
            # A mutated deadline may have passed; one of ours means that nobody answered.
            clean = error.code().name in CLEAN_GRPC and "Stream removed" not in (error.details() or "")
            tally.note(error.code().name, clean, body)
            return
        said = judge(answers[0]) if len(answers) == 1 else f"{len(answers)} answers"
        tally.note(said or "OK", said in ("", *CLEAN_ERRORS), body)

    return ask


def _jina_said(raw: bytes) -> str:
    status = pb.DataRequest.FromString(raw).header.status
    return str(status.exception.name) if status.code else ""


def _own_said(raw: bytes) -> str:
    status = own.Response.FromString(raw).status
    return str(msgpack.unpackb(status)[2]) if status else ""


# WebSocket


async def fuzz_websocket(target: Target, seed: int, number: int) -> Tally:
    """Half of them JSON, half of them bytes; a socket that the gateway closed is opened again."""
    tally = Tally()
    texts = list(json_bodies(seed, number // 2, valid_json()))
    binary = list(messages(seed + 1, number // 2, valid_messages(), broken_documents))
    async with aiohttp.ClientSession() as session:
        for bodies, protocol in ((iter(texts), "json"), (iter(binary), "bytes")):
            await asyncio.gather(*(_socket_client(session, target, bodies, protocol, tally) for _ in range(AT_ONCE)))
    return tally


async def _socket_client(session: aiohttp.ClientSession, target: Target, bodies: Iterator[bytes], protocol: str, tally: Tally) -> None:
    while True:
        async with session.ws_connect(f"ws://{target.addresses['websocket']}/run", protocols=[protocol]) as socket:
            for body in bodies:
                if not await _exchange(socket, body, protocol, tally):
                    break
            else:
                return


async def _exchange(socket: aiohttp.ClientWebSocketResponse, body: bytes, protocol: str, tally: Tally) -> bool:
    """One frame and its answer; False when that ended the socket."""
    await socket.send_bytes(body)
    message = await socket.receive(timeout=HANG_S)
    if message.type is aiohttp.WSMsgType.TEXT:
        said = json.loads(message.data)
        tally.note(str(said.get("code", "OK")), said.get("code", "OK") not in ("INTERNAL", "EXECUTOR_ERROR", "UNAVAILABLE"), body)
        return True
    if message.type is aiohttp.WSMsgType.BINARY:
        name = _jina_said(message.data)
        tally.note(name or "OK", name in ("", *CLEAN_ERRORS), body)
        return True
    clean = socket.close_code in CLEAN_CLOSES or "deadline" in str(message.extra or "")
    tally.note(f"closed with {socket.close_code}", clean, body)
    return False


FUZZERS: dict[str, Callable[[Target, int, int], Awaitable[Tally]]] = {"HTTP": fuzz_http, "gRPC": fuzz_grpc, "WebSocket": fuzz_websocket}
