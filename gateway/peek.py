"""What the gateway needs to know of a JSON request: its routing keys, found without parsing the documents where that can be avoided.

A cheap byte search decides. No key spelt anywhere: nothing to read. Jina's client writes `header` first: then only that object is parsed.
Else the whole body is, and only top-level keys and those of the top-level `header` count, so a document with a field of that name confuses
nobody. `header` wins over a top-level key. Shape errors beyond these keys are found by the first worker.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import orjson

from streamflow.broker.errors import InvalidInput


class Routing(NamedTuple):
    """Routing keys of one request; empty where the body has none. `deadline` is Unix seconds, 0.0 = none."""

    endpoint: str = ""
    target_executor: str = ""
    request_id: str = ""
    deadline: float = 0.0


NOTHING = Routing()
_ENDPOINT = ("execEndpoint", "exec_endpoint")
_TARGET = ("targetExecutor", "target_executor")
_REQUEST_ID = ("requestId", "request_id")
_BY_INITIAL = {b"e": _ENDPOINT, b"t": _TARGET, b"r": _REQUEST_ID}
_ANY_KEY = re.compile(rb'"(?:header"|target_?[Ee]xecutor"|exec_?[Ee]ndpoint"|request_?[Ii]d")')
_OBJECT = re.compile(rb"\s*\{")
_LEADING_HEADER = re.compile(rb'\s*\{\s*"header"\s*:\s*(\{[^{}]*\})\s*[,}]')
_MAX_EPOCH_S = 1 << 32


def peek(body: bytes) -> Routing:
    """The routing keys of a JSON `body`. Raises `InvalidInput` when it has to parse the body and cannot."""
    if not _ANY_KEY.search(body) or not _OBJECT.match(body):
        return NOTHING
    header = _leading_header(body)
    return _routing(header, {}) if header is not None else parse(body)


def parse(body: bytes) -> Routing:
    """Like `peek`, always by parsing. Raises `InvalidInput` when `body` is no JSON object."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not valid JSON: {error}") from None
    if not isinstance(message, dict):
        raise InvalidInput(f"the body must be a JSON object, not {_kind(message)}")
    header = message.get("header")
    if header is not None and not isinstance(header, dict):
        raise InvalidInput(f"header: must be an object, not {_kind(header)}")
    return _routing(header or {}, message)


def _leading_header(body: bytes) -> dict[str, Any] | None:
    """The top-level `header` when it stands first and the rest of the body cannot change what it says."""
    match = _LEADING_HEADER.match(body)
    if match is None:
        return None
    try:
        header: dict[str, Any] = orjson.loads(match[1])
    except orjson.JSONDecodeError:
        return None
    for later in _ANY_KEY.finditer(body, match.end()):
        names = _BY_INITIAL.get(later[0][1:2])
        if names is None or not any(header.get(name) for name in names):
            return None
    return header


def _routing(header: dict[str, Any], message: dict[str, Any]) -> Routing:
    return Routing(
        _text(header, message, _ENDPOINT), _text(header, message, _TARGET), _text(header, message, _REQUEST_ID), _deadline(header)
    )


def _text(header: dict[str, Any], message: dict[str, Any], names: tuple[str, ...]) -> str:
    for where, prefix in ((header, "header."), (message, "")):
        for name in names:
            value = where.get(name)
            if value is not None and not isinstance(value, str):
                raise InvalidInput(f"{prefix}{name}: must be a string, not {_kind(value)}")
            if value:
                return value
    return ""


def _deadline(header: dict[str, Any]) -> float:
    """`header.timeout`: Unix seconds after which the request may be dropped (jina's HeaderProto)."""
    value = header.get("timeout")
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _MAX_EPOCH_S:
        raise InvalidInput("header.timeout: must be a time in Unix seconds")
    return float(value)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
