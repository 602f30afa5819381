"""Several requests' documents as one list and back again, and parameters as a key. Pure: `waiting.py` decides who shares a batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from .endpoints import EndpointSpec
from .failures import EndpointError, misused
from .returns import CallResult, list_of

_ATOMS = (str, int, float, bool, bytes, type(None))


def merge(lists: Sequence[Any]) -> Any:
    """All documents of `lists` (one or more `DocList`s of one type) in order. A single list is handed back itself."""
    if len(lists) == 1:
        return lists[0]
    return type(lists[0]).construct([doc for docs in lists for doc in docs])


def split(docs: Any, counts: Sequence[int]) -> list[Any]:
    """The reverse of `merge`: `docs` cut into lists of `counts` documents, whose sum is `len(docs)`."""
    if len(counts) == 1:
        return [docs]
    rows, lists, start = list(docs), [], 0
    for count in counts:
        lists.append(type(docs).construct(rows[start : start + count]))
        start += count
    return lists


def split_result(spec: EndpointSpec, result: CallResult, counts: Sequence[int]) -> list[CallResult]:
    """What a call on merged requests gave, for each of them. Raises `EndpointError` when there is not one document for each that went in.

    A dict goes to all: whoever must not see what another request caused does not share a call (`batching.py`).
    """
    wanted = sum(counts)
    if len(result.docs) != wanted:
        raise wrong_length(spec, len(result.docs), wanted)
    return [CallResult(docs, result.in_place, result.results) for docs in split(result.docs, counts)]


def join_results(spec: EndpointSpec, results: Sequence[CallResult]) -> CallResult:
    """The result of one request from those of its parts, in order; of two dicts with a key in common, the later one wins."""
    if len(results) == 1:
        return results[0]
    docs = list_of(spec.response_type, [doc for result in results for doc in result.docs])
    dicts = [result.results for result in results if result.results is not None]
    merged = {key: value for one in dicts for key, value in one.items()} if dicts else None
    return CallResult(docs, all(result.in_place for result in results), merged)


def wrong_length(spec: EndpointSpec, got: int, wanted: int) -> EndpointError:
    return misused(
        f"{spec.executor}.{spec.method} ({spec.name}) gave {got} documents for {wanted}; "
        "with dynamic batching an endpoint gives one for each that it got, in their order",
        spec.executor,
    )


def parameters_key(parameters: Mapping[str, Any]) -> Hashable:
    """Equal for equal parameters, in whatever order they came. 1, 1.0 and True differ: user code can tell them apart."""
    return _frozen(parameters) if parameters else None


def _frozen(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return frozenset((_frozen(key), _frozen(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return (type(value), value) if isinstance(value, _ATOMS) else (type(value), repr(value))
