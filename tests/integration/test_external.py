"""Executors of other flows: by the address of their gateway, and by name on the same broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from streamflow import Executor, Flow, requests
from streamflow.broker.errors import ExecutorError, Unavailable
from streamflow.broker.server import EmbeddedBroker, free_port

pytestmark = pytest.mark.feature("FL-33")


class Inner(BaseDoc):
    number: int
    blob: bytes = b""


class Text(BaseDoc):
    text: str = ""
    vector: NdArray[3] | None = None
    inner: DocList[Inner] = DocList[Inner]()
    one: Inner | None = None
    tags: dict[str, Any] = {}


class Far(Executor):
    """What the other flow does."""

    @requests(on="/shout")
    def shout(self, docs: DocList[Text], parameters: dict[str, Any], **kwargs: Any) -> None:
        for doc in docs:
            doc.text = doc.text.upper() + parameters.get("mark", "")
            doc.vector = (np.zeros(3, np.float32) if doc.vector is None else doc.vector) + 1
            doc.inner.append(Inner(number=len(docs), blob=b"\x00\xff"))
            doc.tags = {**doc.tags, "far": [1, None]}

    @requests(on="/count")
    def count(self, docs: DocList[Text], **kwargs: Any) -> dict[str, Any]:
        return {"count": len(docs)}

    @requests(on="/fail")
    def fail(self, **kwargs: Any) -> None:
        raise KeyError("far away")


class Near(Executor):
    """What this flow does before and after."""

    @requests(on=["/shout", "/count"])
    def near(self, docs: DocList[Text], **kwargs: Any) -> None:
        for doc in docs:
            doc.text += f"<{self.runtime_args.name}>"


def check(flow: Flow, near: str = "", *, is_json: bool = False) -> None:
    """The other flow's executor is at work inside `flow`; JSON does not carry the types of tensors."""
    given = Text(id="a", text="hi", vector=np.ones(3, np.float32), one=Inner(number=7, blob=b"\x01"), tags={"deep": {"x": [1.5]}})
    (found, other) = flow.post("/shout", DocList[Text]([given, Text(id="b")]), parameters={"mark": "!"}, return_type=DocList[Text])
    assert (found.id, found.text, other.text) == ("a", f"HI{near.upper()}!", f"{near.upper()}!")
    assert found.vector is not None and found.vector.tolist() == [2, 2, 2]
    assert found.vector.dtype == np.float32 or is_json
    assert [(each.number, each.blob) for each in found.inner] == [(2, b"\x00\xff")]
    assert found.one is not None and (found.one.number, found.one.blob) == (7, b"\x01")
    assert found.tags == {"deep": {"x": [1.5]}, "far": [1, None]}
    assert flow.post("/other", DocList[Text]([Text(text="as it was")]), return_type=DocList[Text])[0].text == "as it was"
    assert flow.post("/shout", return_type=DocList[Text]) == []
    with pytest.raises(ExecutorError, match="far away") as raised:
        flow.post("/fail", Text())
    assert raised.value.name == "KeyError"


@pytest.fixture(scope="module", params=["grpc", "http", "websocket"])
def far(request: pytest.FixtureRequest) -> Iterator[Flow]:
    with Flow(name="far", protocol=request.param, host="127.0.0.1").add(uses=Far, name="far") as flow:
        yield flow


@pytest.mark.feature("EX-32", "DP-12")
def test_an_executor_behind_another_gateway_is_used_like_an_own_one(far: Flow) -> None:
    scheme = {"grpc": "grpc", "http": "http", "websocket": "ws"}[str(far.protocol)]
    with Flow().add(uses=Near, name="near").add(name="ext", external=True, host=f"{scheme}://127.0.0.1", port=far.port) as flow:
        assert flow.is_flow_ready()
        check(flow, "<near>", is_json=far.protocol == "http")
        answer = flow.post("/count", DocList[Text]([Text(), Text()]), return_responses=True)[0]
        assert answer.results == {"ext/rep-0": {"count": 2}}
        assert [route.executor for route in answer.routes] == ["gateway", "near", "ext"]


def test_an_address_where_nobody_answers_is_unavailable_and_named() -> None:
    port = free_port()
    nowhere = Flow().add(name="ext", external=True, host="127.0.0.1", port=port, retries=1)
    with nowhere as flow, pytest.raises(Unavailable, match=f"external executor 'ext' at grpc://127.0.0.1:{port}: "):
        flow.post("/shout", Text())


@pytest.mark.feature("SC-08")
def test_of_several_addresses_those_that_answer_are_used(far: Flow) -> None:
    hosts = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{far.port}"]
    with Flow().add(name="ext", external=True, host=hosts, protocol=str(far.protocol)) as flow:
        check(flow, is_json=far.protocol == "http")


@pytest.mark.feature("EX-32")
def test_an_executor_of_another_flow_on_the_same_broker_is_used_like_an_own_one(broker: EmbeddedBroker) -> None:
    there = Flow(name="there", broker=broker.url).add(uses=Far, name="far")
    here = Flow(name="here", broker=broker.url).add(uses=Near, name="near")
    here.add(name="ext", external=True, external_flow="there", external_executor="far")
    with there, here:
        check(here, "<near>")
        check(there)
