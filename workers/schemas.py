"""Document types and JSON schemas from what users write: annotations (also as text), decorator arguments, pydantic models."""

from __future__ import annotations

import collections.abc as abc
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, ForwardRef, TypeVar, Union

from docarray import BaseDoc, DocList
from docarray.base_doc import AnyDoc
from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from streamflow.broker.errors import FlowError

_NOTHING = (None, type(None), Any, object, inspect.Parameter.empty, ...)
_UNIONS = (Union, types.UnionType)
_LISTS = (list, abc.Sequence, abc.Iterable, abc.Collection, abc.MutableSequence)
_STREAMS = (abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator, abc.Iterator, abc.Generator)


@dataclass(frozen=True, slots=True)
class Shape:
    """What an annotation says about documents."""

    doc: type[BaseDoc] | None = None  # None = not said: any document
    many: bool | None = None  # DocList (True), one document (False), not said (None)


UNTYPED = Shape()


def resolved(annotation: Any, fn: Callable[..., Any], names: Mapping[str, Any], where: str) -> Any:
    """`annotation` with its text parts evaluated where `fn` was written. Raises `FlowError` when a name in it is unknown."""
    if not _has_text(annotation):
        return annotation
    try:
        return _evaluated(annotation, _globals_of(fn), names)
    except Exception as error:  # evaluating the user's text may raise anything
        raise FlowError(f"{where}: annotation {annotation!r} cannot be resolved: {error} (imported under TYPE_CHECKING only?)") from error


def doc_shape(annotation: Any, where: str) -> Shape:
    """The documents that a resolved annotation or schema argument stands for. Raises `FlowError` starting with `where` for others."""
    if any(annotation is nothing for nothing in _NOTHING) or isinstance(annotation, ForwardRef):
        return UNTYPED
    if isinstance(annotation, TypeVar):
        return doc_shape(annotation.__bound__, where)  # a bound given as text stays a ForwardRef: any document
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return doc_shape(arguments[0], where)
    if origin in _UNIONS:
        return _of_union(arguments, where)
    return _of_class(origin or annotation, arguments, where)


def parameters_model(annotation: Any, where: str) -> type[BaseModel] | None:
    """The pydantic model that validates `parameters`, None for a plain dict. Raises `FlowError` for an annotation that is neither."""
    members = [item for item in _members(annotation) if item not in (type(None), BaseModel)]
    models = [item for item in members if isinstance(item, type) and issubclass(item, BaseModel)]
    if len(models) == len(members) == 1:
        return models[0]
    for item in members:
        kind = typing.get_origin(item) or item
        if isinstance(kind, type) and kind is not object and not issubclass(kind, abc.Mapping | BaseModel):
            raise FlowError(f"{where}: annotated {_show(annotation)}, but parameters are a dict or a pydantic model")
    return None


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a document or parameters model, nested ones under `$defs`. What JSON Schema cannot say becomes `{}`, any value.

    Always what goes in: of what comes out, docarray's serializers leave no more than "a list" or "any".
    """
    try:
        schema = model.model_json_schema(schema_generator=_Generator)
    except PydanticInvalidForJsonSchema:
        schema = model.model_json_schema(schema_generator=_Permissive)
    definitions = schema.get("$defs", {})
    itself = definitions.get(schema.get("$ref", "").removeprefix("#/$defs/"))  # a model that contains itself is printed as a reference
    return {**itself, "$defs": definitions} if itself else schema


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, without warnings about defaults it cannot print and without the long descriptions of docarray's own classes."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        result = super().model_schema(schema)
        if schema["cls"].__module__.startswith("docarray."):
            result.pop("description", None)
        return result


class _Permissive(_Generator):
    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonSchemaValue:
        return {}


def _of_union(members: tuple[Any, ...], where: str) -> Shape:
    shapes = {shape for member in members if (shape := doc_shape(member, where)) != UNTYPED}
    if len(shapes) > 1:
        raise FlowError(f"{where}: names more than one document type: {', '.join(sorted(map(_show, members)))}")
    return shapes.pop() if shapes else UNTYPED


def _of_class(kind: Any, arguments: tuple[Any, ...], where: str) -> Shape:
    if kind in _STREAMS or kind in _LISTS:
        inner = doc_shape(arguments[0] if arguments else None, where)
        return Shape(inner.doc, True) if kind in _LISTS else inner
    if isinstance(kind, type) and issubclass(kind, DocList):
        if kind.doc_type is not AnyDoc:
            arguments = (kind.doc_type,)
        return Shape(doc_shape(arguments[0] if arguments else None, where).doc, True)
    if isinstance(kind, type) and issubclass(kind, BaseDoc):
        return Shape(None if kind is AnyDoc else kind, False)
    if isinstance(kind, type) and issubclass(kind, abc.Mapping):
        return UNTYPED
    raise FlowError(f"{where}: {_show(kind)} is neither a document type nor DocList[...] of one")


def _members(annotation: Any) -> tuple[Any, ...]:
    if annotation in (Any, inspect.Parameter.empty):
        return ()
    if isinstance(annotation, TypeVar):
        return _members(annotation.__bound__ or Any)
    return typing.get_args(annotation) if typing.get_origin(annotation) in _UNIONS else (annotation,)


def _has_text(annotation: Any) -> bool:
    if isinstance(annotation, TypeVar):
        return False
    return isinstance(annotation, str | ForwardRef) or any(_has_text(part) for part in typing.get_args(annotation))


def _evaluated(annotation: Any, known: dict[str, Any], names: Mapping[str, Any]) -> Any:
    """Not `typing.get_type_hints`: it subscripts `DocList` with a ForwardRef, which docarray 0.41 refuses."""
    if isinstance(annotation, str | ForwardRef):
        text = annotation if isinstance(annotation, str) else annotation.__forward_arg__
        return _evaluated(eval(text, known, names), known, names)
    if not _has_text(annotation):
        return annotation
    origin = typing.get_origin(annotation)
    arguments = tuple(_evaluated(part, known, names) for part in typing.get_args(annotation))
    return reduce(or_, arguments) if origin in _UNIONS else origin[arguments if len(arguments) > 1 else arguments[0]]


def _globals_of(fn: Callable[..., Any]) -> dict[str, Any]:
    plain = inspect.unwrap(fn)
    return getattr(getattr(plain, "__func__", plain), "__globals__", {})


def _show(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)
