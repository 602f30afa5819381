"""Calling endpoints: what goes in, what comes out, and what user code can do wrong."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from docarray.typing import AnyTensor
from pydantic import BaseModel, Field, field_validator

from streamflow.broker.errors import ExecutorError, FlowError, InvalidInput
from streamflow.workers.executor import Executor, requests
from streamflow.workers.invoke import CallResult, Context, Extras, Invoker
from streamflow.workers.loader import load_executor

from .calling import In, Out, returning, run, texts

FIXTURES = Path(__file__).parents[2] / "fixtures" / "executors"


class Options(BaseModel):
    factor: int = 2
    name: str = Field("x", max_length=3)

    @field_validator("factor")
    @classmethod
    def positive(cls, value: int) -> int:
        if value == 13:
            raise RuntimeError("unlucky")
        return value


@pytest.mark.feature("EX-05", "EX-06")
def test_endpoint_then_fallback_then_nothing() -> None:
    class Both(Executor):
        @requests(on="/index")
        def bar(self, **kwargs: Any) -> None: ...

        @requests
        def foo(self, **kwargs: Any) -> None: ...

    invoker = Invoker(Both())
    assert [getattr(invoker.resolve(name), "method", None) for name in ("/index", "/blah", "/default")] == ["bar", "foo", "foo"]
    assert Invoker(load_executor(None)).resolve("/index") is None
    assert {info.name for info in invoker.describe()} == {"/index", "/default"}


@pytest.mark.feature("EX-12")
def test_none_keeps_the_documents_changed_in_place() -> None:
    class Adds(Executor):
        @requests(on="/x")
        def foo(self, docs: DocList[In], **kwargs: Any) -> DocList[In]:  # type: ignore[return]
            for doc in docs:
                doc.text += "hello, world!"

    docs = texts("", "a")
    assert run(Adds, docs) == CallResult(docs, True, None)
    assert docs.text == ["hello, world!", "ahello, world!"]


def test_returning_what_was_handed_in_is_in_place_too() -> None:
    docs = texts("a")
    assert run(returning(lambda given: given), docs) == CallResult(docs, True, None)


@pytest.mark.feature("EX-12")
def test_returned_documents_replace_them() -> None:
    result = run(returning(lambda docs: DocList[Out]([Out(size=len(doc.text)) for doc in docs])), texts("a", "bb"))
    assert not result.in_place and result.docs.size == [1, 2] and result.docs.doc_type is Out


@pytest.mark.parametrize(("value", "kind"), [([Out(), Out()], Out), ([In()], In), ([], Out), (Out(), Out), ([In(), TextDoc()], None)])
def test_a_plain_list_or_one_document_becomes_a_typed_list(value: Any, kind: Any) -> None:
    result = run(returning(value), texts("a"))
    assert isinstance(result.docs, DocList) and list(result.docs) == (value if isinstance(value, list) else [value])
    if kind:
        assert result.docs.doc_type is kind


def test_a_dict_is_a_result_beside_the_documents() -> None:
    docs = texts("a")
    assert run(returning({"internal_parameter": 20}), docs) == CallResult(docs, True, {"internal_parameter": 20})
    assert run(returning({}), docs).results == {}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (5, "int"),
        ("text", "str"),
        ((In(),), "tuple"),
        ([In(), 3], "a list with int"),
        (np.zeros(2), "ndarray"),
        (iter(()), "tuple_iterator"),
    ],
)
def test_anything_else_is_an_error_that_names_endpoint_and_type(value: Any, kind: str) -> None:
    for endpoint, method in (("/x", "foo"), ("/one", "one")):
        with pytest.raises(ExecutorError) as raised:
            run(returning(value), texts("a"), endpoint=endpoint)
        assert raised.value.name == "TypeError"
        assert f"Returns.{method} ({endpoint}) returned {kind}; an endpoint gives documents, a dict or None" in str(raised.value)


def test_a_coroutine_that_nobody_awaited_is_closed_and_named() -> None:
    async def forgotten() -> None: ...

    with pytest.raises(ExecutorError, match="returned coroutine"):
        run(returning(lambda docs: forgotten()), texts("a"))


@pytest.mark.feature("EX-09")
def test_one_document_at_a_time() -> None:
    seen: list[str] = []

    class One(Executor):
        @requests(on="/x")
        def foo(self, doc: In, parameters: dict[str, Any], **kwargs: Any) -> Any:
            seen.append(doc.text)
            assert "docs" not in kwargs and not parameters.pop("seen", None)
            parameters["seen"] = True
            return {"keep": None, "new": Out(size=1), "dict": {"a": doc.text, doc.id: 1}, "many": [Out(), Out()]}[doc.text]

    docs = texts("keep", "new", "dict", "many", "dict")
    result = run(One, docs)
    assert seen == ["keep", "new", "dict", "many", "dict"]
    assert [type(doc).__name__ for doc in result.docs] == ["In", "Out", "In", "Out", "Out", "In"]
    assert result.results == {"a": "dict", docs[2].id: 1, docs[4].id: 1} and not result.in_place
    assert run(One, texts("keep", "keep")).in_place
    assert run(One, texts("dict")).in_place
    assert run(One, texts()).in_place
    assert run(One, texts("new", "new")).docs.size == [1, 1]


def test_kwargs_receive_everything_but_the_context() -> None:
    seen: dict[str, Any] = {}

    class All(Executor):
        @requests(on="/x")
        def foo(self, **kwargs: Any) -> None:
            seen.update(kwargs)

    docs = texts("a")
    run(All, docs, {"a": 1})
    assert seen == {"docs": docs, "parameters": {"a": 1}, "docs_matrix": None, "docs_map": None, "tracing_context": None}


@pytest.mark.feature("EX-11")
def test_extras_are_handed_to_those_who_ask() -> None:
    seen: list[Any] = []

    class Asks(Executor):
        @requests(on="/x")
        def foo(self, context: Context, docs_map: Any, docs_matrix: Any = 1) -> None:
            seen.extend([context, docs_map, docs_matrix])

    invoker = Invoker(Asks())
    context = Context("r1", attempt=2, deadline=time.time() + 10, fencing_token=7)
    invoker.call(invoker.endpoints["/x"], texts(), {}, Extras([texts("a")], {"e": texts("a")}, None, context))
    assert seen[0] is context and set(seen[1]) == {"e"} and len(seen[2]) == 1
    assert 9 < (context.remaining_s() or 0) <= 10 and Context().remaining_s() is None


def test_parameters_are_a_copy_at_any_depth() -> None:
    class Mutates(Executor):
        @requests(on="/x")
        def foo(self, parameters: dict[str, Any], **kwargs: Any) -> None:
            parameters["new"] = 1
            parameters["inner"]["list"].append({"a": 1})
            parameters["inner"]["list"][0]["x"] = 2

    given = {"inner": {"list": [{"x": 1}]}}
    run(Mutates, texts(), given)
    assert given == {"inner": {"list": [{"x": 1}]}}


class Validates(Executor):
    @requests(on="/x")
    def foo(self, parameters: Options, **kwargs: Any) -> dict[str, Any]:
        return parameters.model_dump()


@pytest.mark.feature("EX-10")
def test_parameters_are_validated_by_the_model() -> None:
    assert run(Validates, texts(), {"factor": "5"}).results == {"factor": 5, "name": "x"}
    with pytest.raises(InvalidInput, match=r"^Validates /x: parameters.factor: .*integer.*; parameters.name: .*at most 3") as raised:
        run(Validates, texts(), {"factor": "many", "name": "long"})
    assert not isinstance(raised.value, ExecutorError)
    with pytest.raises(ExecutorError, match="unlucky"):
        run(Validates, texts(), {"factor": 13})


def test_a_module_with_postponed_annotations() -> None:
    executor = load_executor("postponed.Postponed", base_dir=FIXTURES / "variants")
    invoker = Invoker(executor)
    spec = invoker.endpoints["/size"]
    assert invoker.call(spec, DocList[spec.request_type]([spec.request_type(text="abc")]), {"factor": 3}).docs.size == [9]  # type: ignore[name-defined]


async def test_async_endpoints_run_on_the_loop_one_document_after_the_other() -> None:
    running: list[str] = []

    class Async(Executor):
        @requests(on="/docs")
        async def docs(self, docs: DocList[In], **kwargs: Any) -> DocList[Out]:
            await asyncio.sleep(0)
            return DocList[Out]([Out(size=len(doc.text)) for doc in docs])

        @requests(on="/doc")
        async def doc(self, doc: In, **kwargs: Any) -> Out:
            assert not running
            running.append(doc.text)
            await asyncio.sleep(0)
            running.remove(doc.text)
            return Out(size=len(doc.text))

        @requests(on="/sync")
        def sync(self, docs: DocList[In], **kwargs: Any) -> None: ...

    invoker = Invoker(Async())
    for name in ("/docs", "/doc"):
        assert (await invoker.acall(invoker.endpoints[name], texts("a", "bb"))).docs.size == [1, 2]
    assert (await invoker.acall(invoker.endpoints["/sync"], texts("a"))).in_place
    with pytest.raises(ExecutorError, match="returned coroutine"):
        invoker.call(invoker.endpoints["/docs"], texts("a"))


async def test_our_cancellation_stays_a_cancellation_and_the_users_becomes_an_answer() -> None:
    started = asyncio.Event()

    class Cancels(Executor):
        @requests(on="/waits")
        async def waits(self, **kwargs: Any) -> None:
            started.set()
            await asyncio.Event().wait()

        @requests(on="/own")
        async def own(self, **kwargs: Any) -> None:
            raise asyncio.CancelledError

    invoker = Invoker(Cancels())
    task = asyncio.create_task(invoker.acall(invoker.endpoints["/waits"], texts()))
    async with asyncio.timeout(5):
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ExecutorError) as raised:
            await invoker.acall(invoker.endpoints["/own"], texts())
    assert raised.value.name == "CancelledError"


class Streams(Executor):
    closed: list[str] = []

    @requests(on="/hello")
    async def hello(self, doc: In, parameters: dict[str, Any], **kwargs: Any) -> AsyncIterator[Out]:
        try:
            for n in range(parameters.get("n", 3)):
                yield Out(size=n)
            if doc.text == "fail":
                raise ValueError("at the end")
        finally:
            self.closed.append("hello")

    @requests(on="/sync")
    def sync(self, doc: In, **kwargs: Any) -> Iterator[Out]:
        try:
            for n in range(3):
                yield Out(size=n)
            if doc.text == "fail":
                raise ValueError("at the end")
        finally:
            self.closed.append("sync")

    @requests(on="/list")
    def many(self, docs: DocList[In]) -> Iterator[Out]:
        yield Out(size=len(docs))

    @requests(on="/wrong")
    def wrong(self, doc: In) -> Iterator[Out]:
        yield 5  # type: ignore[misc]


@pytest.mark.feature("EX-14")
@pytest.mark.parametrize("endpoint", ["/hello", "/sync"])
async def test_streams_give_documents_one_by_one(endpoint: str) -> None:
    invoker = Invoker(Streams())
    spec = invoker.endpoints[endpoint]
    assert [doc.size async for doc in invoker.astream(spec, In())] == [0, 1, 2]
    found = []
    with pytest.raises(ExecutorError, match="at the end") as raised:
        async for doc in invoker.astream(spec, In(text="fail")):
            found.append(doc.size)
    assert found == [0, 1, 2] and "/invoke.py" not in "".join(raised.value.status.stacks)
    assert (await invoker.acall(spec, texts("a", "b"))).docs.size == [0, 1, 2, 0, 1, 2]


def test_sync_streams_run_without_a_loop() -> None:
    invoker = Invoker(Streams())
    assert [doc.size for doc in invoker.stream(invoker.endpoints["/sync"], In())] == [0, 1, 2]
    assert [doc.size for doc in invoker.stream(invoker.endpoints["/list"], In())] == [1]
    assert invoker.call(invoker.endpoints["/sync"], texts("a", "b")).docs.size == [0, 1, 2, 0, 1, 2]
    with pytest.raises(ExecutorError, match=r"Streams.wrong \(/wrong\) yielded int; an endpoint gives one document at a time"):
        list(invoker.stream(invoker.endpoints["/wrong"], In()))


async def test_leaving_a_stream_closes_the_endpoints_generator() -> None:
    invoker = Invoker(Streams())
    Streams.closed.clear()
    sync = invoker.stream(invoker.endpoints["/sync"], In())
    next(sync)
    sync.close()  # type: ignore[attr-defined]
    stream = invoker.astream(invoker.endpoints["/hello"], In(), {"n": 10**9})
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert Streams.closed == ["sync", "hello"]


class Arrays(BaseDoc):
    tensor: AnyTensor | None = None
    embedding: AnyTensor | None = None


@pytest.mark.feature("DC-10")
def test_output_array_type_numpy_leaves_numpy_alone() -> None:
    class Gives(Executor):
        @requests(on="/x")
        def foo(self, docs: DocList[Arrays], **kwargs: Any) -> None:
            docs[0].tensor = np.arange(3)  # type: ignore[assignment]

    docs = DocList[Arrays]([Arrays()])
    result = run(Gives, docs, output_array_type="numpy")
    assert result.docs[0].tensor.tolist() == [0, 1, 2] and result.docs[0].embedding is None


@pytest.mark.feature("DC-10")
def test_output_array_type_is_checked_at_the_start() -> None:
    with pytest.raises(FlowError, match="output_array_type: 'jax' is none of numpy, torch"):
        run(Validates, texts(), output_array_type="jax")
    if "torch" not in sys.modules:
        with pytest.raises(FlowError, match="output_array_type: torch: import torch where the executor is defined"):
            run(Validates, texts(), output_array_type="torch")


@pytest.mark.feature("DC-10")
def test_output_array_type_converts_both_ways() -> None:
    torch = pytest.importorskip("torch")

    class Gives(Executor):
        @requests(on="/x")
        def foo(self, docs: DocList[Arrays], **kwargs: Any) -> None:
            docs[0].tensor = np.arange(3.0)  # type: ignore[assignment]
            docs[0].embedding = torch.ones(2, requires_grad=True, dtype=torch.bfloat16)

    as_torch = run(Gives, DocList[Arrays]([Arrays()]), output_array_type="torch").docs[0]
    assert isinstance(as_torch.tensor, torch.Tensor) and as_torch.tensor.tolist() == [0.0, 1.0, 2.0]
    as_numpy = run(Gives, DocList[Arrays]([Arrays()]), output_array_type="numpy").docs[0]
    assert isinstance(as_numpy.embedding, np.ndarray) and as_numpy.embedding.tolist() == [1.0, 1.0]


def test_two_executors_in_a_row_see_each_others_changes() -> None:
    class First(Executor):
        @requests(on="/change_in_place")
        def in_place(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
            for doc in docs:
                doc.text = "I changed the executor in place"

        @requests(on="/return_different_docarray")
        def different(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
            return DocList[TextDoc]([TextDoc(text="I returned a different Document")])

    seen = []
    for endpoint in ("/change_in_place", "/return_different_docarray"):
        seen.append(run(First, DocList[TextDoc]([TextDoc(text="start")]), endpoint=endpoint).docs.text)
    assert seen == [["I changed the executor in place"], ["I returned a different Document"]]
