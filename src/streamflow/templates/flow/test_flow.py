"""`pytest` here: the executor as a plain object, then the flow with its own broker, on a free port."""

from __future__ import annotations

from pathlib import Path

from docarray import DocList
from executor1.executor import Message, MyExecutor

from streamflow import Flow


def two() -> DocList[Message]:
    return DocList[Message]([Message(), Message()])


def test_executor() -> None:
    assert MyExecutor().foo(two()).text == ["hello, world!", "goodbye, world!"]


def test_flow() -> None:
    flow = Flow.load_config(str(Path(__file__).with_name("flow.yml")))
    with flow.config_gateway(protocol="grpc", port=0):
        assert flow.post("/", two(), return_type=DocList[Message]).text == ["hello, world!", "goodbye, world!"]
