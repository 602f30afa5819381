"""The form of HTTP and WebSocket: JSON both ways, by orjson over the documents' own fields.

Bytes are base64, tensors nested lists, dates ISO 8601, UUID, Decimal and other exact types text, sets lists. NaN and infinity have no JSON
form: they are written as null, and null inside a tensor is read as NaN. Tensor dtypes and the shape of empty tensors are not in the text,
so they are not kept.
"""

from __future__ import annotations

import base64
from datetime import date
from typing import Any
from uuid import UUID

import numpy as np
import orjson
from docarray.array.any_array import AnyDocArray
from docarray.base_doc.doc import BaseDocWithoutId
from docarray.typing.tensor.abstract_tensor import AbstractTensor

from ..errors import InvalidInput
from ..limits import MAX_DEPTH, check_count, check_depth
from .plans import Plan
from .tensors import check_dtype, is_torch, to_lists, widened
from .values import plain

_FAST = orjson.OPT_SERIALIZE_NUMPY
_ANY_KEYS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def dump(rows: list[Any]) -> bytes:
    """A JSON array of rows. Raises `TypeError` or `ValueError` for values without a JSON form."""
    try:
        return orjson.dumps(rows, default=_default, option=_FAST)
    except TypeError:  # keys that are not text, integers above 64 bits, big-endian arrays: rare, and worth a second pass
        return orjson.dumps(_copied(rows, 0), default=_default, option=_ANY_KEYS)


def load(body: bytes | memoryview) -> tuple[list[Any], dict[str, Any] | None]:
    """Documents as parsed, and parameters, of a request object `{"data": [..] | {..}, "parameters": {..}}` or a bare list of documents."""
    payload: Any = orjson.loads(body) if len(body) else []
    parameters: Any = None
    if isinstance(payload, dict):
        payload, parameters = payload.get("data"), payload.get("parameters")
    elif not isinstance(payload, list):
        raise InvalidInput("body: a JSON object with `data` or a list of documents is needed")
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidInput("parameters: Input should be a JSON object")
    rows = [] if payload is None else payload if isinstance(payload, list) else [payload]
    check_count(len(rows))
    if parameters and _may_be_deep(body):
        check_depth(parameters, "parameters")
    return rows, parameters


def decode(body: bytes | memoryview, plan: Plan, ids: str = "") -> tuple[Any, dict[str, Any] | None, dict[str, list[Any]] | None]:
    """`DocList` of the plan's class, parameters, and the columns that the class has no field for."""
    rows, parameters = load(body)
    if ids and "id" in plan.names:
        _name(rows, ids)
    docs, unknown = plan.read(rows, shallow=not _may_be_deep(body))
    return docs, parameters, unknown


def _name(rows: list[Any], ids: str) -> None:
    for index, row in enumerate(rows):
        if isinstance(row, dict) and row.get("id") is None:
            row["id"] = f"{ids}-{index}"


def _may_be_deep(body: bytes | memoryview) -> bool:
    """False when the text has too few brackets to nest beyond the limit, which spares nearly every request the walk."""
    text = bytes(body)
    return text.count(b"[") + text.count(b"{") > MAX_DEPTH


def _default(value: Any) -> Any:
    """What orjson asks for: the value in simpler types."""
    if isinstance(value, np.ndarray):
        check_dtype(value)
        # orjson writes plain arrays itself and asks again for what it cannot: strides, 0-d, big-endian, text, complex
        return to_lists(value) if type(value) is np.ndarray or not value.dtype.isnative else value.view(np.ndarray)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if is_torch(value) or isinstance(value, AbstractTensor):
        return widened(value)
    if isinstance(value, AnyDocArray):
        return list(value)
    return plain(value)


def _copied(value: Any, depth: int) -> Any:
    """A copy with what orjson refuses replaced: keys become text, integers above 64 bits a fragment of JSON."""
    if depth > 2 * MAX_DEPTH:
        raise ValueError(f"more than {2 * MAX_DEPTH} levels inside each other")
    if isinstance(value, BaseDocWithoutId):
        value = plain(value)
    if isinstance(value, dict):
        return {_key(key): _copied(item, depth + 1) for key, item in value.items()}
    if isinstance(value, np.ndarray) and not value.dtype.isnative:
        return _default(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_copied(item, depth + 1) for item in value]
    if type(value) is int and not -(2**63) <= value < 2**64:
        return orjson.Fragment(str(value))
    return value


def _key(key: Any) -> Any:
    if isinstance(key, bytes):
        return base64.b64encode(key).decode("ascii")
    return key if key is None or isinstance(key, str | bool | float | date | UUID) else str(plain(key))
