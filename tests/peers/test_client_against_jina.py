"""Our client against the original's gateway, all three protocols. Needs jina 3.34.0 in an environment of its own, `.peers/jina`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from streamflow.broker.errors import ExecutorError
from streamflow.client import Client, DataRequest, RequestTimeout, SyncClient

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".peers" / "jina" / "bin" / "python"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PYTHON.exists(), reason="no jina in .peers/jina")]


class Item(BaseDoc):
    text: str = ""
    number: int = 0
    vector: NdArray | None = None  # type: ignore[type-arg]  # docarray's own generic base


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [made.getsockname()[1] for made in sockets]
    for made in sockets:
        made.close()
    return ports


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    found = free_ports(5)
    log = tmp_path_factory.mktemp("jina") / "jina.log"
    command = [str(PYTHON), str(Path(__file__).with_name("jina_flow.py")), *map(str, found)]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"JINA_OPTOUT_TELEMETRY": "1"},
            start_new_session=True,
        )
    output = cast(IO[str], process.stdout)
    try:
        assert any(line.strip() == "ready" for line in output), log.read_text()[-3000:]
        yield dict(zip(("grpc", "http", "websocket", "stream_grpc", "stream_http"), found, strict=True))
    finally:
        cast(IO[str], process.stdin).close()
        output.close()
        os.killpg(process.pid, signal.SIGKILL)  # its own way out takes minutes once a stream was served
        process.wait(10)


@pytest.fixture(params=["grpc", "http", "websocket"])
def client(request: pytest.FixtureRequest, ports: dict[str, int]) -> Iterator[SyncClient]:
    with Client("127.0.0.1", ports[request.param], request.param) as made:
        yield made


def items(count: int) -> list[Item]:
    return [Item(text=str(number), number=number) for number in range(count)]


def test_readiness_before_and_after(client: SyncClient) -> None:
    assert client.is_flow_ready() is True
    with Client("127.0.0.1", free_ports(1)[0], client.address.protocol) as other:
        assert other.is_flow_ready() is False


def test_return_kinds(client: SyncClient) -> None:
    assert client.post("/echo", Item(text="Hi there"), return_type=DocList[Item]).text == ["Hi there!?"]
    (response,) = client.post("/echo", Item(text="Hi there"), return_type=DocList[Item], return_responses=True)
    assert response.docs.text == ["Hi there!?"]
    seen: list[DataRequest] = []
    assert client.post("/echo", Item(text="Hi there"), on_done=seen.append) is None
    assert [response.docs[0].text for response in seen] == ["Hi there!?"]


def test_many_requests_in_order_with_tensors(client: SyncClient) -> None:
    found = client.post("/echo", iter(items(180)), request_size=10, results_in_order=True, return_type=DocList[Item])
    assert found.text == [f"{number}!?" for number in range(180)]
    np.testing.assert_array_equal(np.asarray(found[-1].vector), [0.0, 1.0, 2.0])


def test_the_default_header_and_routes(client: SyncClient) -> None:
    (response,) = client.post("/", Item(), return_responses=True)
    assert (response.header.exec_endpoint, response.header.target_executor) == ("/", "")
    assert response.parameters["__results__"] == {}
    if client.address.protocol != "http":  # its answers have no routes
        assert [route.executor for route in response.routes][:2] == ["gateway", "first"]


def test_target_executor_and_parameters_of_one_executor(client: SyncClient) -> None:
    assert client.post("/echo", Item(), target_executor="second.*", return_type=Item).text == "?"
    assert client.post("/echo", Item(), parameters={"first__suffix": "A", "second__suffix": "B"}, return_type=Item).text == "AB"


def test_results_come_back_as_floats_with_and_without_documents(client: SyncClient) -> None:
    for inputs in (Item(), None):
        (response,) = client.post("/results", inputs, parameters={"hello": "world"}, return_responses=True)
        assert response.results == {"first/rep-0": {"answer": 42.0, "given": "world"}}


def test_an_executor_error(client: SyncClient) -> None:
    with pytest.raises(ExecutorError, match="no such thing"):
        client.post("/fail", Item(text="bad"))
    docs = [Item(text="good"), Item(text="bad"), Item(text="good")]
    assert client.post("/fail", docs, request_size=1, continue_on_error=True, return_type=DocList[Item]).text == ["good", "good"]
    failed: list[str] = []
    client.post("/fail", docs, request_size=1, on_error=lambda response: failed.append(response.status.description))
    assert failed == ["NotImplementedError('no such thing')"]


def test_no_answer_in_time(client: SyncClient) -> None:
    with pytest.raises(RequestTimeout):
        client.post("/sleep", Item(number=5000), timeout=0.3)
    assert client.post("/sleep", Item(number=1), timeout=5.0, return_type=Item).number == 1


def test_an_endpoint_that_is_not_listed_goes_to_the_default(client: SyncClient) -> None:
    assert client.post("/nowhere", Item(text="a"), return_type=Item).text == "a"


def test_unary_calls_and_compression(ports: dict[str, int]) -> None:
    with Client(f"grpc://127.0.0.1:{ports['grpc']}") as client:
        assert len(client.post("/echo", items(20), request_size=3, stream=False)) == 20
        assert len(client.post("/echo", items(20), request_size=3, compression="Gzip")) == 20


async def test_the_async_client(client: SyncClient) -> None:
    async with Client(str(client.address), asyncio=True) as talker:
        numbers = [docs[0].number async for docs in talker.post("/echo", items(10), request_size=1, return_type=DocList[Item])]
    assert sorted(numbers) == list(range(10))


@pytest.mark.parametrize("scheme", ["grpc", "http"])
async def test_documents_stream(scheme: str, ports: dict[str, int]) -> None:
    async with Client(f"{scheme}://127.0.0.1:{ports[f'stream_{scheme}']}", asyncio=True) as talker:
        assert [doc.text async for doc in talker.stream_doc("/talk", Item(text="a b c"), return_type=Item)] == ["a", "b", "c"]
        if scheme == "http":
            assert await talker.is_deployment_ready() is True
