"""Requests around the broker's message limit, through HTTP and gRPC: all are answered, no connection is lost (P27)."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import aiohttp
import grpc
import pytest

from streamflow.broker.server import MAX_PAYLOAD_BYTES
from streamflow.gateway.proto import shallow_pb2 as pb

from .checker import nothing_left, stream_states
from .executors.steps import Item
from .programs import Program, Programs, broker_of, flow_file, step
from .wires import UNARY, as_message, from_message

pytestmark = pytest.mark.feature("DC-04")

KIB = 1024
SPREAD = (-64, -63, -33, -32, -31, -17, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 31, 32, 33, 63, 64)
INLINE_BYTES = 512 * KIB  # above it a body goes through the object store
SIZES = [0, 1, KIB, *(INLINE_BYTES + off for off in (-64, -1, 0, 1, 64)), *(MAX_PAYLOAD_BYTES + off for off in SPREAD), 16 * KIB * KIB]


@dataclass
class Served:
    program: Program
    addresses: dict[str, str]
    broker_url: str


@pytest.fixture(scope="module")
def flow(module_programs: Programs) -> Served:
    file = flow_file(module_programs.folder, "sizes", [step("one", mark="1"), step("two", mark="2")], ("grpc", "http"))
    program, addresses = module_programs.flow(file)
    return Served(program, addresses, broker_of(program))


def http_body(size: int) -> bytes:
    """A JSON request of exactly `size` bytes, or the smallest one above."""
    frame = b'{"data":[{"id":"d","text":"%b"}]}'
    return frame % (b"x" * max(0, size - len(frame) + 2))


async def test_http_answers_every_size_on_one_connection(flow: Served) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    opened: list[object] = []
    trace = aiohttp.TraceConfig()

    async def count(_session: object, _context: object, parameters: object) -> None:
        opened.append(parameters)

    trace.on_connection_create_end.append(count)
    async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as session:
        for size in SIZES:
            body = http_body(size) if size else b""
            headers = {"content-type": "application/json"} if body else {}
            async with session.post(f"http://{flow.addresses['http']}/run", data=io.BytesIO(body), headers=headers) as response:
                answer = await response.json()
            assert response.status == 200, f"{size} bytes: {response.status} {str(answer)[:300]}"
            expected = [len(body) - len(http_body(0)) + 2] if body else []
            assert [len(doc["text"]) for doc in answer["data"]] == expected, f"{size} bytes"
    assert len(opened) == 1, f"{len(opened)} connections were needed: the gateway closed some"
    await settled(flow)


async def test_grpc_answers_every_size_on_one_channel(flow: Served) -> None:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(flow.addresses["grpc"], options=options) as channel:
        ask = channel.unary_unary(UNARY)
        for size in SIZES:
            text = "x" * max(0, size - len(grpc_request("")))
            raw = grpc_request(text) if size else pb.DataRequest(header=pb.Header(exec_endpoint="/run")).SerializeToString()
            answer = await ask(raw, timeout=30)
            if size:
                assert from_message(answer)[0]["text"] == text + "12", f"{size} bytes"
            else:
                assert pb.DataRequest.FromString(answer).header.status.code == 0
    await settled(flow)


def grpc_request(text: str) -> bytes:
    return bytes(as_message([Item(id="d", text=text)], "/run").SerializeToString())


async def settled(flow: Served) -> None:
    """Nothing waits, and no large body is left in the store."""
    await nothing_left(flow.broker_url)
    states = await stream_states(flow.broker_url)
    assert all(state["messages"] == 0 for name, state in states.items() if name.endswith("blobs"))
    assert "died" not in flow.program.output and "killed" not in flow.program.output


FITTING = 200 * KIB  # parameters travel in the header of an envelope, which has a limit of its own (256 KiB)
PARAMETERS = [KIB, FITTING, 256 * KIB - 300, 256 * KIB, 300 * KIB, MAX_PAYLOAD_BYTES]


@pytest.mark.parametrize("size", PARAMETERS)
async def test_parameters_of_every_size_are_answered(flow: Served, size: int) -> None:
    body = json.dumps({"data": [{"id": "d", "text": "x"}], "parameters": {"p": "y" * size}}).encode()
    timeout = aiohttp.ClientTimeout(total=5)
    async with (
        aiohttp.ClientSession(timeout=timeout, headers={"content-type": "application/json"}) as session,
        session.post(f"http://{flow.addresses['http']}/run", data=io.BytesIO(body)) as response,
    ):
        answer = await response.json()
    assert response.status == 200 or (size > FITTING and response.status == 413), f"{response.status} {str(answer)[:300]}"


@pytest.mark.parametrize("size", PARAMETERS)
async def test_grpc_parameters_of_every_size_are_answered(flow: Served, size: int) -> None:
    message = as_message([Item(id="d", text="x")], "/run")
    message.parameters.update({"p": "y" * size})
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(flow.addresses["grpc"], options=options) as channel:
        try:
            answer = await channel.unary_unary(UNARY)(message.SerializeToString(), timeout=5)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, f"{error.code()} {error.details()}"
            assert size > FITTING
        else:
            status = pb.DataRequest.FromString(answer).header.status
            assert status.code == 0 or (size > FITTING and status.exception.name == "TooLarge"), status.description
