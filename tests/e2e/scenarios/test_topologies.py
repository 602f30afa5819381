"""Branches, joins, conditions, floating executors and schemas."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from docarray.typing import NdArray

from streamflow import Client, Executor, Flow, FlowError, requests

from .executors import Counted, Named, Text
from .served import port_of

FIVE, FOUR = {"tags__key": {"$eq": 5}}, {"tags__key": {"$eq": 4}}


class Tagged(BaseDoc):
    tags: dict[str, float] = {}
    seen: str = ""


class Sees(Executor):
    @requests
    def see(self, docs: DocList[Tagged], **kwargs: Any) -> None:
        for doc in docs:
            doc.seen += self.runtime_args.name


class Says(Executor):
    """Adds its own name, in place."""

    @requests
    def say(self, docs: DocList[Text], **kwargs: Any) -> DocList[Text]:
        for doc in docs:
            doc.text += self.runtime_args.name.title()
        return docs


class MergeExec(Executor):
    @requests
    def merge(
        self,
        docs: DocList[Text],
        docs_matrix: list[DocList[Text]] | None = None,
        docs_map: dict[str, DocList[Text]] | None = None,
        **kwargs: Any,
    ) -> DocList[Text]:
        assert docs_matrix is not None and docs_map is not None
        assert {name: [doc.text for doc in each] for name, each in docs_map.items()} == {"exec1": ["Exec1"], "exec2": ["Exec1Exec2"]}
        made = DocList[Text]()
        for one, two in zip(*docs_matrix, strict=True):
            print(f'MergeExec processing pairs of Documents "{one.text}" and "{two.text}"')
            made.append(Text(text=f'Document merging from "{one.text}" and "{two.text}"'))
        return made


class ShowsParameter(Executor):
    @requests
    def show(self, docs: DocList[Text], parameters: dict[str, Any], **kwargs: Any) -> None:
        for doc in docs:
            doc.text += f"{self.runtime_args.name}={sorted(parameters.items())};"


class FastChanging(Executor):
    @requests
    def foo(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        for doc in docs:
            doc.text = "Hello World"


class SlowChanging(Executor):
    def __init__(self, ledger: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ledger = Path(ledger)

    @requests
    def foo(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        time.sleep(2)
        with self.ledger.open("a") as file:
            file.write(f"Received {docs.text}\n")
        for doc in docs:
            doc.text = "Change the document but will not affect response"


class TextEmbedded(Text):
    embedding: NdArray  # type: ignore[type-arg]


class Embeds(Executor):
    @requests(on="/foo")
    def foo(self, docs: DocList[Text], **kwargs: Any) -> DocList[TextEmbedded]:
        return DocList[TextEmbedded]([TextEmbedded(text=doc.text, embedding=np.ones(10)) for doc in docs])


class TakesEmbedded(Executor):
    @requests(on="/foo")
    def foo(self, docs: DocList[TextEmbedded], **kwargs: Any) -> DocList[TextEmbedded]:
        return docs


@pytest.mark.feature("FL-04", "FL-06")
def test_t11_branches_are_joined_and_merged() -> None:
    flow = (
        Flow()
        .add(uses=Counted, uses_with={"word": "foo"}, name="fooExecutor")
        .add(uses=Counted, uses_with={"word": "bar"}, name="barExecutor", needs="fooExecutor")
        .add(uses=Counted, uses_with={"word": "baz"}, name="bazExecutor", needs="fooExecutor")
        .add(needs=["barExecutor", "bazExecutor"])
    )
    with flow:
        texts = flow.post("/", return_type=DocList[TextDoc]).text
    assert texts == [f"{name} was here and got {count} document" for name, count in (("foo", 0), ("bar", 1), ("baz", 1))]


@pytest.mark.feature("FL-07", "EX-11", "EX-13")
def test_t12_a_joiner_gets_the_branches_side_by_side(capfd: pytest.CaptureFixture[str]) -> None:
    """exec1's branch does not show what exec2 then did to the document in place."""
    flow = Flow().add(uses=Says, name="exec1").add(uses=Says, name="exec2").add(uses=MergeExec, needs=["exec1", "exec2"], no_reduce=True)
    with flow:
        found = flow.post("/", Text(), return_type=DocList[Text])
    assert found.text == ['Document merging from "Exec1" and "Exec1Exec2"']
    assert 'MergeExec processing pairs of Documents "Exec1" and "Exec1Exec2"' in capfd.readouterr().out


@pytest.mark.feature("FL-35", "FL-36")
def test_t22_t23_a_target_executor_and_parameters_of_one_executor() -> None:
    flow = Flow().add(uses=Named, name="fooExecutor").add(uses=Named, name="barExecutor")
    flow.add(uses=ShowsParameter, name="exec1").add(uses=ShowsParameter, name="exec2")
    with flow, Client(port=port_of(flow)) as client:
        assert client.post("/", Text(), target_executor="bar*", return_type=DocList[Text]).text == ["<barExecutor>"]
        parameters = {"exec1__x": "one", "exec2__x": "two", "shared": True}
        found = client.post("/", Text(), parameters=parameters, return_type=Text, target_executor="exec")
        assert found.text == "exec1=[('shared', True), ('x', 'one')];exec2=[('shared', True), ('x', 'two')];"


@pytest.mark.feature("FL-21", "FL-22")
def test_t29_a_floating_executor_neither_answers_nor_delays_and_is_waited_for_at_the_end(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    flow = (
        Flow()
        .add(name="executor0", uses=FastChanging)
        .add(name="floating_executor", uses=SlowChanging, uses_with={"ledger": str(ledger)}, needs=["gateway"], floating=True)
    )
    with flow:
        started = time.monotonic()
        response = flow.post("/endpoint", DocList[TextDoc]([TextDoc(text="a"), TextDoc(text="b")]), return_type=DocList[TextDoc])
        took_s = time.monotonic() - started
        assert not ledger.exists()
    assert response.text == ["Hello World", "Hello World"] and took_s < 1.5
    assert ledger.read_text() == "Received ['a', 'b']\n"


@pytest.mark.feature("DC-11", "FL-05", "FL-30", "FL-31", "FL-32")
def test_t30_t31_t32_documents_pass_the_conditions_one_after_the_other_and_side_by_side() -> None:
    """Three flows of Jina's documentation in one: first the branches, then a condition behind them, then one that contradicts it."""
    flow = (
        Flow()
        .add(uses=Sees, name="first")
        .add(uses=Sees, name="five", needs="first", when=FIVE)
        .add(uses=Sees, name="four", needs="first", when=FOUR)
        .needs_all(name="join", uses=Sees)
        .add(uses=Sees, name="only5", when=FIVE)
        .add(uses=Sees, name="only4", when=FOUR)
    )
    inputs = DocList[Tagged]([Tagged(tags={"key": 5}), Tagged(tags={"key": 4})])
    with flow, Client(port=port_of(flow)) as client:
        joined = client.post("/", inputs, target_executor="first|five|four|join", return_type=DocList[Tagged])
        assert joined.tags == [{"key": 5.0}, {"key": 4.0}] and joined.seen == ["firstfivejoin", "firstfourjoin"]
        chained = client.post("/", inputs, target_executor="first|only5", return_type=DocList[Tagged])
        assert chained.tags == [{"key": 5.0}]
        assert list(client.post("/", inputs, return_type=DocList[Tagged])) == []


@pytest.mark.feature("DC-04", "EX-07", "EX-41", "FL-12")
def test_t33_a_flow_starts_only_when_its_schemas_fit() -> None:
    with Flow().add(uses=Embeds).add(uses=TakesEmbedded) as flow:
        found = flow.post("/foo", Text(text="hi"), return_type=DocList[TextEmbedded])
        assert found[0].embedding.shape == (10,)
    wrong = Flow().add(uses=Named, name="text").add(uses=TakesEmbedded, name="vectors")
    with pytest.raises(FlowError, match="(?s)'?text'?.*'?vectors'?.*embedding"):
        wrong.start()
    wrong.close()
