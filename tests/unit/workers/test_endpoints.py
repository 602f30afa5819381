"""Signatures and annotations to endpoint specifications, and what of them is announced."""

# mypy: disable-error-code="empty-body"

import functools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Dict, List, Optional, TypeVar, Union  # noqa: UP035

import msgpack
import numpy as np
import pytest
from docarray import BaseDoc, DocList, DocVec
from docarray.documents import TextDoc
from docarray.documents.legacy import LegacyDocument
from docarray.typing import AnyTensor, NdArray
from pydantic import BaseModel, Field

from streamflow.broker.announce import Announcement
from streamflow.broker.errors import FlowError
from streamflow.workers.endpoints import EndpointSpec, bind_endpoints
from streamflow.workers.executor import Batching, Executor, dynamic_batching, requests, write


class In(BaseDoc):
    """What goes in."""

    text: str = Field(description="the text", examples=["hi"])


class Out(BaseDoc):
    size: int = 0
    embedding: Optional[NdArray[4]] = None  # type: ignore[valid-type]  # noqa: UP045
    matches: DocList[TextDoc] = DocList[TextDoc]()


class Options(BaseModel):
    factor: int = 2


T_in = TypeVar("T_in", bound=In)
T_any = TypeVar("T_any", bound="BaseDoc")


def spec_of(method: Callable[..., Any], **kwargs: Any) -> EndpointSpec:
    """The specification of `method` as the only endpoint of a class `Exec`."""
    cls = type("Exec", (Executor,), {"foo": requests(on="/x")(method)})
    return bind_endpoints(cls(**kwargs))["/x"]


@pytest.mark.feature("EX-07")
def test_documents_come_from_the_annotations() -> None:
    def foo(self: Any, docs: DocList[In], **kwargs: Any) -> DocList[Out]: ...

    spec = spec_of(foo)
    assert (spec.name, spec.executor, spec.method, spec.documents, spec.single) == ("/x", "Exec", "foo", "docs", False)
    assert (spec.request_type, spec.response_type) == (In, Out)
    assert spec.takes_parameters and spec.extras == ("docs_map", "docs_matrix", "tracing_context")


@pytest.mark.feature("DC-03")
def test_without_annotations_legacy_documents_stand_in() -> None:
    def foo(self: Any, **kwargs: Any): ...  # type: ignore[no-untyped-def]

    spec = spec_of(foo)
    assert (spec.request_type, spec.response_type) == (LegacyDocument, LegacyDocument)
    info = spec.describe()
    assert (info.request_schema, info.response_schema, info.parameters_schema) == (None, None, None)


@pytest.mark.feature("EX-07")
def test_decorator_schemas_win_over_annotations() -> None:
    class Exec(Executor):
        @requests(on="/x", request_schema=DocList[In], response_schema=Out)
        def foo(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]: ...

    spec = bind_endpoints(Exec())["/x"]
    assert (spec.request_type, spec.response_type) == (In, Out)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (DocList[In], In),
        (Optional[DocList[In]], In),  # noqa: UP045
        (DocList[In] | None, In),
        (Union[DocList[In], Dict, None], In),  # noqa: UP006, UP007
        ("DocList[In]", In),
        ("Optional[DocList['In']]", In),
        (DocList["In"], In),
        (DocList[T_in], In),  # type: ignore[valid-type]
        (List[In], In),  # noqa: UP006
        (list[In], In),
        (DocList, None),
        (DocList[T_any], None),  # type: ignore[valid-type]
        (Any, None),
        (Dict, None),  # noqa: UP006
        (dict[str, Any], None),
    ],
)
def test_a_list_is_annotated_in_many_ways(annotation: Any, expected: Any) -> None:
    def foo(self, docs, **kwargs): ...  # type: ignore[no-untyped-def]

    foo.__annotations__ = {"docs": annotation, "return": annotation}
    spec = spec_of(foo)
    assert (spec.request_typed, spec.response_typed) == (expected is not None,) * 2
    assert (spec.request_type, spec.response_type) == (expected or LegacyDocument,) * 2


@pytest.mark.feature("EX-09")
@pytest.mark.parametrize("annotation", [In, "In", Optional[In], T_in, "Union[In, Dict, None]"])  # noqa: UP045
def test_one_document_at_a_time_is_asked_for_by_name(annotation: Any) -> None:
    def foo(self, doc, **kwargs): ...  # type: ignore[no-untyped-def]

    foo.__annotations__ = {"doc": annotation, "return": annotation}
    spec = spec_of(foo)
    assert spec.single and spec.documents == "doc" and spec.request_type is spec.response_type is In
    assert spec.describe().single


def test_returning_nothing_means_the_request_type() -> None:
    def foo(self: Any, docs: DocList[In]) -> None: ...

    assert spec_of(foo).response_type is In


def test_without_a_return_annotation_the_response_is_not_guessed() -> None:
    def foo(self: Any, docs: DocList[In]): ...  # type: ignore[no-untyped-def]

    assert not spec_of(foo).response_typed


@pytest.mark.feature("EX-04", "EX-14")
def test_sync_async_and_streaming_are_told_apart() -> None:
    def plain(self: Any, doc: In) -> Out: ...
    async def coroutine(self: Any, doc: In) -> Out: ...
    def stream(self: Any, doc: In) -> Iterator[Out]:
        yield Out()

    async def astream(self: Any, doc: In) -> AsyncIterator[Out]:
        yield Out()

    async def jina_style(self: Any, doc: In) -> Out:  # type: ignore[misc]
        yield Out()

    found = [spec_of(method) for method in (plain, coroutine, stream, astream, jina_style)]
    assert [(spec.is_async, spec.is_generator) for spec in found] == [
        (False, False),
        (True, False),
        (False, True),
        (True, True),
        (True, True),
    ]
    assert {spec.response_type for spec in found} == {Out}
    assert [spec.describe().streaming for spec in found] == [False, False, True, True, True]


def test_a_decorator_of_the_user_may_stand_between() -> None:
    def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        return inner

    class Exec(Executor):
        @logged
        @requests(on="/a")
        async def a(self, docs: DocList[In]) -> DocList[Out]: ...

        @requests(on="/b")
        @logged
        def b(self, docs: "DocList[In]") -> DocList[Out]: ...

    found = bind_endpoints(Exec())
    assert found["/a"].is_async and not found["/b"].is_async
    assert {spec.request_type for spec in found.values()} == {In}


@pytest.mark.feature("EX-10")
@pytest.mark.parametrize(
    ("annotation", "model"),
    [
        (Options, Options),
        (Optional[Options], Options),  # noqa: UP045
        ("Options | None", Options),
        (Dict, None),  # noqa: UP006
        ("dict[str, Any]", None),
        (Union[Dict, BaseModel], None),  # noqa: UP006, UP007
        (BaseModel, None),
        (Any, None),
    ],
)
def test_parameters_are_a_dict_or_a_model(annotation: Any, model: Any) -> None:
    def foo(self, parameters, **kwargs): ...  # type: ignore[no-untyped-def]

    foo.__annotations__ = {"parameters": annotation}
    spec = spec_of(foo)
    assert spec.parameters_model is model and spec.takes_parameters
    if model:
        assert (spec.describe().parameters_schema or {})["properties"]["factor"]["default"] == 2


def test_only_declared_arguments_are_passed_when_there_are_no_kwargs() -> None:
    def foo(self: Any, docs_map: Any, context: Any, top_k: int = 3) -> None: ...

    spec = spec_of(foo)
    assert (spec.documents, spec.takes_parameters, spec.extras) == ("", False, ("context", "docs_map"))


def wrong_both(self, doc, docs, **kwargs): ...  # type: ignore[no-untyped-def]
def wrong_list(self, doc: DocList[In], **kwargs): ...  # type: ignore[no-untyped-def]
def wrong_one(self, docs: In, **kwargs): ...  # type: ignore[no-untyped-def]
def wrong_type(self, docs: int, **kwargs): ...  # type: ignore[no-untyped-def]
def wrong_vector(self, docs: DocVec[In], **kwargs): ...  # type: ignore[no-untyped-def]
def wrong_return(self, docs, **kwargs) -> np.ndarray: ...  # type: ignore[no-untyped-def]
def wrong_union(self, docs: Union[DocList[In], DocList[Out]], **kwargs): ...  # type: ignore[no-untyped-def]  # noqa: UP007
def wrong_name(self, docs: "DocList[Missing]", **kwargs): ...  # type: ignore[no-untyped-def, name-defined]  # noqa: F821
def wrong_parameters(self, parameters: int, **kwargs): ...  # type: ignore[no-untyped-def]
def wrong_argument(self, documents, **kwargs): ...  # type: ignore[no-untyped-def]
def wrong_position(self, docs, /): ...  # type: ignore[no-untyped-def]
def wrong_self(docs: DocList[In], **kwargs): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (wrong_both, "Exec.foo: takes both `docs`"),
        (wrong_list, r"Exec.foo: argument 'doc' is annotated with a list: write In, or call it 'docs'"),
        (wrong_one, r"Exec.foo: argument 'docs' is annotated with one document: write DocList\[In\], or call it 'doc'"),
        (wrong_type, r"Exec.foo: argument 'docs': int is neither a document type nor DocList\[...\] of one"),
        (wrong_vector, "Exec.foo: argument 'docs': DocVec"),
        (wrong_return, "Exec.foo: return: ndarray is neither"),
        (wrong_union, "Exec.foo: argument 'docs': names more than one document type"),
        (wrong_name, r"Exec.foo: argument 'docs': annotation 'DocList\[Missing\]' cannot be resolved: name 'Missing' is not defined"),
        (wrong_parameters, "Exec.foo: argument 'parameters': annotated int, but parameters are a dict or a pydantic model"),
        (wrong_argument, "Exec.foo: nobody fills argument 'documents'.*did you mean 'docs'"),
        (wrong_position, "Exec.foo: nobody fills argument 'docs'"),
        (wrong_self, "Exec.foo: its first argument is 'docs': `self` is missing"),
    ],
)
def test_what_cannot_work_is_named(method: Callable[..., Any], message: str) -> None:
    with pytest.raises(FlowError, match=message):
        spec_of(method)


def test_a_wrong_schema_argument_is_named() -> None:
    class Exec(Executor):
        @requests(request_schema=int)
        def foo(self, docs: Any, **kwargs: Any) -> None: ...

    with pytest.raises(FlowError, match="Exec.foo: request_schema: int is neither"):
        bind_endpoints(Exec())


def test_classes_without_super_init_are_refused() -> None:
    class Forgets(Executor):
        def __init__(self) -> None:
            pass

    with pytest.raises(FlowError, match="Forgets.__init__ must call super"):
        bind_endpoints(Forgets())


class Batched(Executor):
    @requests(on="/a")
    @dynamic_batching(preferred_batch_size=7, flush_all=True)
    def a(self, docs: DocList[In], **kwargs: Any) -> None: ...

    @requests
    def b(self, docs: DocList[In], **kwargs: Any) -> None: ...


@pytest.mark.feature("DB-01", "DB-02", "DB-07")
def test_batching_comes_from_decorator_and_configuration() -> None:
    def options(**config: Any) -> dict[str, Batching | None]:
        return {name: spec.batching for name, spec in bind_endpoints(Batched(dynamic_batching=config)).items()}

    assert options() == {"/a": Batching(7, flush_all=True), "/default": None}
    assert options(**{"/a": {"timeout": 200}})["/a"] == Batching(7, 0.2, True)
    assert options(**{"/default": {"preferred_batch_size": 2}})["/default"] == Batching(2)
    assert options(b={"preferred_batch_size": 3})["/default"] == Batching(3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"/aa": {}}, "uses_dynamic_batching: Batched has no endpoint '/aa'; did you mean '/a'"),
        ({"/a": {"preferred_batch_size": 0}}, "uses_dynamic_batching: '/a': preferred_batch_size must be"),
    ],
)
def test_wrong_batching_configuration_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(FlowError, match=message):
        bind_endpoints(Batched(dynamic_batching=config))


def test_batching_needs_the_list_form() -> None:
    def foo(self: Any, doc: In) -> Out: ...

    with pytest.raises(FlowError, match="Exec.foo: dynamic batching needs an endpoint that takes `docs`"):
        spec_of(foo, dynamic_batching={"/x": {}})


@pytest.mark.feature("EX-41")
def test_the_announcement_carries_schemas_descriptions_and_marks() -> None:
    class Exec(Executor):
        @write
        @requests(on="/index")
        def index(self, docs: DocList[In], parameters: Options, **kwargs: Any) -> DocList[Out]:
            """Adds documents.

            All of them.
            """

    info = bind_endpoints(Exec())["/index"].describe()
    assert (info.name, info.write, info.description) == ("/index", True, "Adds documents.\n\nAll of them.")
    request = info.request_schema or {}
    assert request["title"] == "In" and request["description"] == "What goes in."
    assert request["properties"]["text"] == {"description": "the text", "examples": ["hi"], "title": "Text", "type": "string"}
    response = info.response_schema or {}
    assert response["properties"]["embedding"]["anyOf"][0]["type"] == "array"
    assert response["properties"]["matches"]["items"] == {"$ref": "#/$defs/TextDoc"}
    assert "description" not in response["$defs"]["TextDoc"]
    announcement = Announcement(flow="f", executor="e", instance="i", endpoints=(info,))
    assert Announcement.decode(announcement.encode()).endpoints == (info,)
    assert msgpack.unpackb(msgpack.packb(response)) == json.loads(json.dumps(response)) == response


def test_a_document_that_contains_itself_still_shows_its_properties() -> None:
    def foo(self: Any, docs: DocList[LegacyDocument], **kwargs: Any) -> None: ...

    schema = spec_of(foo).describe().request_schema or {}
    assert {"text", "matches"} <= set(schema["properties"]) and "LegacyDocument" in schema["$defs"]


def test_fields_that_json_schema_cannot_say_become_any_value() -> None:
    class Odd(BaseDoc):
        model_config = {"arbitrary_types_allowed": True}  # type: ignore[typeddict-item]
        tensor: AnyTensor = np.zeros(3)  # type: ignore[assignment]
        call: Callable[[int], int] | None = None
        thing: complex = 1j

    def foo(self: Any, docs: DocList[Odd], **kwargs: Any) -> DocList[Odd]: ...

    info = spec_of(foo).describe()
    assert set((info.request_schema or {})["properties"]) >= {"tensor", "call"}
    assert set((info.response_schema or {})["properties"]) >= {"tensor", "call"}
