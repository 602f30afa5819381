"""The `when` filter of an executor: docarray's query language, compiled once to a predicate. No eval, no docarray.

A query is `{path: {operator: value}}`; several paths or operators must all hold. Paths step into fields, keys and positions with `__`
(`tags__key`). Operators: `$eq $ne $neq $gt $gte $lt $lte $in $nin $regex $size $exists`, and `$and $or $not` around queries (`$not` also
around operators of one path). A value `"{other}"` stands for another field of the same document. As in docarray a path that a document
lacks fails every operator but `$exists: false`. Unlike docarray, `$or` and `$not` beside other keys are combined with "and" as in MongoDB
(docarray draws the other keys into the `$or`), and values that cannot be compared do not match instead of raising.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import FlowError

Predicate = Callable[[Any], bool]
Path = tuple[str | int, ...]
Test = Callable[[Any, Any], bool]

MAX_DEPTH = 32
_PLACEHOLDER = re.compile(r"\{\s*([a-zA-Z0-9_]*)\s*\}")
_MISSING = object()


def compile_condition(query: Any, *, executor: str = "") -> Predicate:
    """The predicate of `query` over a document (attributes) or a mapping (keys). Raises `FlowError` naming `executor` and the operator."""
    try:
        return _query(query, 0)
    except FlowError as error:
        raise FlowError(f"executor {executor!r}: when: {error}" if executor else f"when: {error}") from None


def _query(query: Any, depth: int) -> Predicate:
    if depth > MAX_DEPTH:
        raise FlowError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(query, list):
        return _all([_query(each, depth + 1) for each in query])
    if not isinstance(query, Mapping):
        raise FlowError(f"expected {{field: {{operator: value}}}}, got {query!r}")
    return _all([_entry(str(key), value, depth) for key, value in query.items()])


def _entry(key: str, value: Any, depth: int) -> Predicate:
    if key in _LOGICAL:
        return _logical(key, value, lambda each: _query(each, depth + 1))
    if key.startswith("$"):
        raise FlowError(f"{key}: unknown operator; around queries there are {', '.join(_LOGICAL)}")
    return _operators(key, value, depth)


def _operators(key: str, value: Any, depth: int) -> Predicate:
    """All operators of one path."""
    if not isinstance(value, Mapping) or not value:
        raise FlowError(f"{key}: expected {{operator: value}}, got {value!r}")
    if depth > MAX_DEPTH:
        raise FlowError(f"nested more than {MAX_DEPTH} deep")
    tests = []
    for sign, operand in value.items():
        if sign in _LOGICAL:
            # docarray takes a query here, MongoDB operators; a query's keys do not start with "$".
            tests.append(_logical(sign, operand, lambda each: _inner(key, each, depth + 1)))
        else:
            tests.append(_comparison(key, sign, operand))
    return _all(tests)


def _inner(key: str, query: Any, depth: int) -> Predicate:
    if isinstance(query, Mapping) and query and all(str(each).startswith("$") and each not in _LOGICAL for each in query):
        return _operators(key, query, depth)
    return _query(query, depth)


def _logical(sign: str, value: Any, compile_one: Callable[[Any], Predicate]) -> Predicate:
    """`$and`, `$or`: a list of queries, or one mapping whose entries are the queries. `$not`: a query."""
    if not isinstance(value, list | Mapping) or not value:
        raise FlowError(f"{sign}: expected a query or a list of queries, got {value!r}")
    parts = value if isinstance(value, list) else [{key: each} for key, each in value.items()]
    predicates = [compile_one(part) for part in parts]
    if sign == "$or":
        return lambda doc: any(each(doc) for each in predicates)
    both = _all(predicates)
    return both if sign == "$and" else lambda doc: not both(doc)


def _comparison(key: str, sign: str, operand: Any) -> Predicate:
    if sign not in _TESTS:
        raise FlowError(f"{key}: {sign}: unknown operator; there are {', '.join((*_TESTS, *_LOGICAL))}")
    path, test = _path(key), _TESTS[sign]
    other = _placeholder(key, sign, operand)
    if sign == "$exists":
        return lambda doc: (_look_up(doc, path) is not _MISSING) == operand
    if other is None:
        return lambda doc: _holds(test, _look_up(doc, path), operand)
    return lambda doc: _holds(test, _look_up(doc, path), _or_none(_look_up(doc, other)))


def _placeholder(key: str, sign: str, operand: Any) -> Path | None:
    """Check the operand of an operator; the path when it stands for another field."""
    if isinstance(operand, str) and operand.startswith("{") and sign != "$exists":
        found = _PLACEHOLDER.fullmatch(operand)
        if not found:
            raise FlowError(f"{key}: {sign}: {operand!r} is no placeholder; write '{{field}}'")
        return _path(found[1])
    problem = _OPERANDS.get(sign, lambda _: "")(operand)
    if problem:
        raise FlowError(f"{key}: {sign}: {problem}, got {operand!r}")
    return None


def _regex_problem(operand: Any) -> str:
    try:
        re.compile(operand)
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        return f"not a regular expression ({error})"
    return ""


def _holds(test: Test, value: Any, operand: Any) -> bool:
    if value is _MISSING:
        return False
    try:
        return bool(test(value, operand))
    except (TypeError, ValueError, re.error):
        return False  # values of kinds that do not compare


def _ordered(compare: Test) -> Test:
    return lambda value, operand: value is not None and compare(value, operand)


def _matches(value: Any, pattern: str) -> bool:
    # docarray's url and text types answer this with the string to search in
    text = getattr(value, "_get_string_for_regex_filter", lambda: value)()
    return text is not None and re.search(pattern, text) is not None


def _path(key: str) -> Path:
    return tuple(int(step) if _is_position(step) else step for step in key.split("__")) if "__" in key else (key,)


def _is_position(step: str) -> bool:
    return step.removeprefix("-").isdecimal() and len(step) < 10


def _look_up(doc: Any, path: Path) -> Any:
    """The value at `path`, or `_MISSING`. None on the way ends the search with None, as in docarray."""
    value = doc
    for step in path:
        if value is None:
            return None
        try:
            value = _step_into(value, step)
        except (AttributeError, LookupError, TypeError, ValueError):
            return _MISSING
    return value


def _step_into(value: Any, step: str | int) -> Any:
    if isinstance(value, Mapping):
        return value[step]
    if isinstance(step, int):
        return value[step]
    if isinstance(value, Sequence):
        raise LookupError(step)
    return getattr(value, step)


def _or_none(value: Any) -> Any:
    return None if value is _MISSING else value


def _all(predicates: list[Predicate]) -> Predicate:
    if len(predicates) == 1:
        return predicates[0]
    return lambda doc: all(each(doc) for each in predicates)


_LOGICAL = ("$and", "$or", "$not")
_TESTS: dict[str, Test] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$neq": operator.ne,
    "$gt": _ordered(operator.gt),
    "$gte": _ordered(operator.ge),
    "$lt": _ordered(operator.lt),
    "$lte": _ordered(operator.le),
    "$in": lambda value, operand: value in operand,
    "$nin": lambda value, operand: value not in operand,
    "$regex": _matches,
    "$size": lambda value, operand: value is not None and len(value) == operand,
    "$exists": lambda value, operand: True,
}
_OPERANDS: dict[str, Callable[[Any], str]] = {
    "$in": lambda operand: "" if isinstance(operand, list | tuple | str) else "expected a list",
    "$nin": lambda operand: "" if isinstance(operand, list | tuple | str) else "expected a list",
    "$regex": _regex_problem,
    "$size": lambda operand: "" if isinstance(operand, int) and not isinstance(operand, bool) else "expected a whole number",
    "$exists": lambda operand: "" if isinstance(operand, bool) else "expected true or false",
}
