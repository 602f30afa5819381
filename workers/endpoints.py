"""What each endpoint of an executor wants and gives, read once from signatures, annotations and decorators.

`bind_endpoints(executor)` runs before the worker takes its first request, so that a wrong annotation stops the start and not a request.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from docarray import BaseDoc
from docarray.documents.legacy import LegacyDocument
from pydantic import BaseModel

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.errors import FlowError

from .decorators import Batching, Marks, marks_of, normalized, suggest
from .executor import Executor
from .schemas import UNTYPED, Shape, doc_shape, json_schema, parameters_model, resolved

DOCUMENTS = ("docs", "doc")
EXTRAS = ("docs_matrix", "docs_map", "tracing_context")  # what `**kwargs` receives beside documents and parameters
INJECTED = (*DOCUMENTS, "parameters", *EXTRAS, "context")


@dataclass(frozen=True, slots=True, eq=False)
class EndpointSpec:
    """One endpoint bound to one executor."""

    name: str  # "/index"; "/default" is the fallback
    executor: str  # class name
    method: str
    fn: Callable[..., Any]  # bound; called with keywords only
    is_async: bool = False
    is_generator: bool = False
    documents: str = "docs"  # argument that takes them: "docs" = all, "doc" = one per call, "" = the method does not look at them
    takes_parameters: bool = False
    extras: tuple[str, ...] = ()  # of docs_matrix, docs_map, tracing_context, context: those to pass
    request_type: type[BaseDoc] = LegacyDocument
    response_type: type[BaseDoc] = LegacyDocument
    request_typed: bool = False  # False = nothing was declared, LegacyDocument stands in
    response_typed: bool = False
    parameters_model: type[BaseModel] | None = None
    write: bool = False
    batching: Batching | None = None
    description: str = field(default="", repr=False)

    @property
    def single(self) -> bool:
        return self.documents == "doc"

    def describe(self) -> EndpointInfo:
        """What the worker announces. Takes milliseconds: call it once."""
        return EndpointInfo(
            name=self.name,
            request_schema=json_schema(self.request_type) if self.request_typed else None,
            response_schema=json_schema(self.response_type) if self.response_typed else None,
            parameters_schema=json_schema(self.parameters_model) if self.parameters_model else None,
            streaming=self.is_generator,
            single=self.single,
            write=self.write,
            description=self.description,
        )


def bind_endpoints(executor: Executor) -> dict[str, EndpointSpec]:
    """The endpoints of `executor` by name. Raises `FlowError` naming class, method and argument for what cannot work."""
    try:
        bound = executor.bound
    except AttributeError as error:
        raise FlowError(str(error)) from error
    batching = _batching(executor)
    return {name: _spec(executor, name, method, batching.get(name)) for name, method in bound.items()}


def _spec(executor: Executor, name: str, method: str, batching: Batching | None) -> EndpointSpec:
    cls, fn = type(executor), getattr(executor, method)
    marks, where = marks_of(cls, method), f"{cls.__name__}.{method}"
    declared = _Declaration(fn, {**vars(cls), **marks.names}, marks, where)
    _check_self(cls, method, where)
    documents, wants = declared.arguments()
    request, response = declared.request(documents), declared.response()
    if response is None and declared.changes_in_place:
        response = request
    forms = (fn, inspect.unwrap(fn))
    is_generator = any(inspect.isgeneratorfunction(form) or inspect.isasyncgenfunction(form) for form in forms)
    if batching and (documents == "doc" or is_generator):
        raise FlowError(f"{where}: dynamic batching needs an endpoint that takes `docs` and returns them once")
    return EndpointSpec(
        name=name,
        executor=cls.__name__,
        method=method,
        fn=fn,
        is_async=any(inspect.iscoroutinefunction(form) or inspect.isasyncgenfunction(form) for form in forms),
        is_generator=is_generator,
        documents=documents,
        takes_parameters="parameters" in wants,
        extras=tuple(sorted(wants - {"parameters"})),
        request_type=request or LegacyDocument,
        response_type=response or LegacyDocument,
        request_typed=request is not None,
        response_typed=response is not None,
        parameters_model=declared.parameters(),
        write=marks.write,
        batching=batching,
        description=inspect.getdoc(fn) or "",
    )


class _Declaration:
    """Signature and decorator arguments of one method."""

    def __init__(self, fn: Callable[..., Any], names: Mapping[str, Any], marks: Marks, where: str) -> None:
        self.fn = fn
        self.names = names
        self.marks = marks
        self.where = where
        self.signature = inspect.signature(fn)

    def arguments(self) -> tuple[str, frozenset[str]]:
        """The argument that takes documents, and the others to inject."""
        given = self.signature.parameters
        named = {name for name, parameter in given.items() if self._injectable(parameter)}
        if named.issuperset(DOCUMENTS):
            raise FlowError(f"{self.where}: takes both `docs` (all documents) and `doc` (one at a time): keep one")
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in given.values()):
            named |= {"parameters", *EXTRAS} | (set() if "doc" in named else {"docs"})
        documents = next((name for name in DOCUMENTS if name in named), "")
        return documents, frozenset(named.difference(DOCUMENTS))

    def request(self, documents: str) -> type[BaseDoc] | None:
        if self.marks.request_schema is not None:
            return self._schema("request_schema", self.marks.request_schema).doc
        shape = self._annotated(documents) if documents in self.signature.parameters else UNTYPED
        name = shape.doc.__name__ if shape.doc else "..."
        if documents == "docs" and shape.many is False:
            raise FlowError(f"{self.where}: argument 'docs' is annotated with one document: write DocList[{name}], or call it 'doc'")
        if documents == "doc" and shape.many:
            raise FlowError(f"{self.where}: argument 'doc' is annotated with a list: write {name}, or call it 'docs'")
        return shape.doc

    def response(self) -> type[BaseDoc] | None:
        if self.marks.response_schema is not None:
            return self._schema("response_schema", self.marks.response_schema).doc
        return self._annotated("return").doc

    @property
    def changes_in_place(self) -> bool:
        """`-> None`: what goes out is what came in."""
        return self.marks.response_schema is None and self._annotation("return") in (None, type(None), "None")

    def parameters(self) -> type[BaseModel] | None:
        if "parameters" not in self.signature.parameters:
            return None
        where = f"{self.where}: argument 'parameters'"
        return parameters_model(resolved(self._annotation("parameters"), self.fn, self.names, where), where)

    def _injectable(self, parameter: inspect.Parameter) -> bool:
        if parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
            return False
        if parameter.name in INJECTED and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY:
            return True
        if parameter.default is inspect.Parameter.empty:
            known = ", ".join(INJECTED)
            raise FlowError(
                f"{self.where}: nobody fills argument {parameter.name!r}: endpoints are called with {known}; read it from `parameters`, "
                f"or give it a default{suggest(parameter.name, INJECTED)}"
            )
        return False

    def _annotated(self, argument: str) -> Shape:
        where = f"{self.where}: {'return' if argument == 'return' else f'argument {argument!r}'}"
        return doc_shape(resolved(self._annotation(argument), self.fn, self.names, where), where)

    def _schema(self, name: str, schema: Any) -> Shape:
        where = f"{self.where}: {name}"
        shape = doc_shape(resolved(schema, self.fn, self.names, where), where)
        if shape == UNTYPED:
            raise FlowError(f"{where}: {schema!r} is neither a document type nor DocList[...] of one")
        return shape

    def _annotation(self, argument: str) -> Any:
        return self.signature.return_annotation if argument == "return" else self.signature.parameters[argument].annotation


def _check_self(cls: type, method: str, where: str) -> None:
    """`def foo(docs, **kwargs)` binds the executor to `docs`: say so at the start."""
    raw = inspect.getattr_static(cls, method)
    first = next(iter(inspect.signature(raw).parameters), "") if inspect.isfunction(raw) else ""
    if first in INJECTED:
        raise FlowError(f"{where}: its first argument is {first!r}: `self` is missing")


def _batching(executor: Executor) -> dict[str, Batching]:
    """Options by endpoint: the decorator's, overridden by `uses_dynamic_batching`, whose keys are endpoints or method names."""
    cls, overrides = type(executor), executor.dynamic_batching
    known = {*executor.bound, *executor.bound.values()}
    for key in overrides:
        if key not in known and normalized(key) not in known:
            raise FlowError(f"uses_dynamic_batching: {cls.__name__} has no endpoint {key!r}{suggest(key, known)}")
    result = {}
    for endpoint, method in executor.bound.items():
        batching = marks_of(cls, method).batching
        for key, options in overrides.items():
            if key == method or normalized(key) == endpoint:
                batching = (batching or Batching()).updated(options, f"uses_dynamic_batching: {key!r}")
        if batching:
            result[endpoint] = batching
    return result
