"""What an endpoint may return (or yield), and what that makes of the documents."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from operator import is_
from typing import Any, NamedTuple

import msgpack
from docarray import BaseDoc, DocList

from streamflow.broker.envelope import pack
from streamflow.broker.errors import InvalidInput

from .endpoints import EndpointSpec
from .failures import EndpointError, misused


class CallResult(NamedTuple):
    """What a call gave: the documents to pass on, and the dict for `__results__` (None = the endpoint returned no dict)."""

    docs: Any  # DocList
    in_place: bool = False  # `docs` is the very list that was handed in
    results: dict[str, Any] | None = None


def of_all(spec: EndpointSpec, docs: Any, value: Any) -> CallResult:
    """After one call on all of `docs`: documents replace them, None keeps them, a dict keeps them and is a result beside them.

    Raises `EndpointError` for any other value.
    """
    if value is None or value is docs:
        return CallResult(docs, True)
    if isinstance(value, dict):
        return CallResult(docs, True, sendable(spec, value))
    return CallResult(_listed(spec, value))


def of_each(spec: EndpointSpec, docs: Any, values: list[Any]) -> CallResult:
    """After one call for each of `docs`, by the same rules and in their order; of two dicts with a key in common, the later one wins."""
    items: list[BaseDoc] = []
    results: dict[str, Any] | None = None
    for doc, value in zip(docs, values, strict=True):
        if isinstance(value, dict):
            results = {**(results or {}), **sendable(spec, value)}
        keep = value is None or value is doc or isinstance(value, dict)
        items.extend([doc] if keep else _listed(spec, value))
    in_place = len(items) == len(docs) and all(map(is_, items, docs))
    return CallResult(docs if in_place else list_of(spec.response_type, items), in_place, results)


def sendable(spec: EndpointSpec, value: dict[Any, Any]) -> dict[Any, Any]:
    """The dict as its readers will see it. Raises `EndpointError` for what no message can hold, before anything is on its way."""
    try:
        plain: dict[Any, Any] = msgpack.unpackb(pack(value, "the dict"), raw=False, strict_map_key=False)
        return plain
    except (InvalidInput, ValueError, TypeError, msgpack.UnpackException) as error:
        raise misused(f"{spec.executor}.{spec.method} ({spec.name}) returned a dict that cannot be sent: {error}", spec.executor) from error


def yielded(spec: EndpointSpec, item: Any) -> None:
    """Raises `EndpointError` for anything but a document."""
    if not isinstance(item, BaseDoc):
        raise _misused(spec, "yielded", item, "one document at a time")


def list_of(kind: type[BaseDoc], items: Sequence[BaseDoc]) -> DocList[Any]:
    """A `DocList` of `kind`, or of what the items really are."""
    found = {type(item) for item in items}
    if all(issubclass(item, kind) for item in found):
        return DocList[kind].construct(items)  # type: ignore[valid-type]
    return (DocList[found.pop()] if len(found) == 1 else DocList).construct(items)  # type: ignore[misc]


def _listed(spec: EndpointSpec, value: Any) -> DocList[Any]:
    if isinstance(value, DocList):
        return value
    items = [value] if isinstance(value, BaseDoc) else value
    if type(items) is not list or not all(isinstance(item, BaseDoc) for item in items):
        raise _misused(spec, "returned", value, "documents, a dict or None")
    return list_of(spec.response_type, items)


def _misused(spec: EndpointSpec, verb: str, value: Any, wanted: str) -> EndpointError:
    if inspect.iscoroutine(value):
        value.close()  # nobody awaits it: no warning beside the error
    kind = type(value).__name__
    if type(value) is list:
        kind = f"a list with {next(type(item).__name__ for item in value if not isinstance(item, BaseDoc))}"
    return misused(f"{spec.executor}.{spec.method} ({spec.name}) {verb} {kind}; an endpoint gives {wanted}", spec.executor)
