"""What a client is told when an executor raises, is too slow or is not there."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import aiohttp
import grpc
import pytest
from docarray import DocList

from streamflow import Client, ExecutorError, Flow
from streamflow.gateway.proto import shallow_pb2 as pb

from .executors import Raising, Slow, Span
from .served import PROTOCOLS, port_of


@pytest.fixture(scope="module")
def raising() -> Iterator[Flow]:
    with Flow(protocol=list(PROTOCOLS), port=[0, 0, 0]).add(uses=Raising, name="first").add(name="second") as flow:
        yield flow


@pytest.fixture(scope="module")
def slow() -> Iterator[Flow]:
    """A request takes longer than `timeout_send` allows."""
    flow = Flow(protocol=list(PROTOCOLS), port=[0, 0, 0], retries=2).config_gateway(timeout_send=500)
    with flow.add(uses=Slow, uses_with={"seconds": 1.0}, replicas=2) as flow:
        yield flow


def client_of(flow: Flow, protocol: str) -> Any:
    return Client(port=port_of(flow, protocol), protocol=protocol)


@pytest.mark.feature("EX-15", "ER-02", "ER-10", "PR-04", "CL-06")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_t18_t19_an_exception_is_an_answer_with_name_text_traceback_and_place(raising: Flow, protocol: str) -> None:
    told: list[Any] = []
    with client_of(raising, protocol) as client:
        client.post("/bare", on_error=told.append)
        client.post("/why", on_error=told.append)
        with pytest.raises(ExecutorError, match="no time for it"):
            client.post("/why")
        assert len(client.post("/fine", Span(), return_type=DocList[Span])) == 1
    bare, why = (response.header.status for response in told)
    assert bare.description == "NotImplementedError()"
    assert why.description == "NotImplementedError('no time for it')"
    assert why.exception == "NotImplementedError" and why.executor == "Raising"
    assert "no time for it" in "".join(why.stacks) and "executors.py" in "".join(why.stacks)


@pytest.mark.feature("GW-25", "ER-04", "ER-05", "ER-07")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_t39_a_request_that_takes_too_long_is_a_connection_error(slow: Flow, protocol: str) -> None:
    with client_of(slow, protocol) as client, pytest.raises(ConnectionError, match="executor0"):
        client.post("/", Span())


@pytest.mark.feature("ER-04")
def test_t39_over_http_it_is_a_504_with_the_reason(slow: Flow) -> None:
    url = f"http://127.0.0.1:{port_of(slow, 'http')}/post"
    request = urllib.request.Request(url, json.dumps({"data": [{}], "execEndpoint": "/"}).encode(), {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as failure:
        urllib.request.urlopen(request, timeout=20)
    with failure.value as answer:
        assert answer.status == 504 and "executor0" in json.load(answer)["header"]["status"]["description"]


@pytest.mark.feature("ER-04")
async def test_t39_over_grpc_it_is_deadline_exceeded(slow: Flow) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port_of(slow, 'grpc')}") as channel:
        single = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await single(b"")
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.feature("ER-04")
async def test_t39_over_websocket_it_is_close_code_1011(slow: Flow) -> None:
    """With the sub-protocol of Jina's client; with `json` the error is an answer and the socket stays."""
    url = f"ws://127.0.0.1:{port_of(slow, 'websocket')}/"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=("bytes",)) as socket:
        await socket.send_bytes(pb.DataRequest(header={"request_id": "late", "exec_endpoint": "/"}).SerializeToString())
        message = await socket.receive(timeout=20)
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        assert message.data == 1011 and "executor0" in (message.extra or "")
