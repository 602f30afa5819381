"""`pytest` here: the executor as a plain object, then the deployment with its own broker, on a free port."""

from __future__ import annotations

from pathlib import Path

from docarray import DocList
from executor1.executor import Message, MyExecutor

from streamflow import Deployment


def two() -> DocList[Message]:
    return DocList[Message]([Message(), Message()])


def test_executor() -> None:
    assert MyExecutor().foo(two()).text == ["hello, world!", "goodbye, world!"]


def test_deployment() -> None:
    deployment = Deployment.load_config(str(Path(__file__).with_name("deployment.yml")))
    with deployment.config_gateway(protocol="grpc", port=0):
        assert deployment.post("/", two(), return_type=DocList[Message]).text == ["hello, world!", "goodbye, world!"]
