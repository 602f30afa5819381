"""The form that workers speak among themselves: msgpack, one value list per field, tensors as raw bytes.

A body is `[version, fingerprint, *block]`, a block `[count, content, nested]`. `content` is a map from field to column; of one document,
from field to value; of documents of different classes, a list of such maps. A column is a list of `count` values, or one extension with all
tensors stacked, or nil. `nested` maps the fields that hold documents to `0` (one document) or `1` (a list): their column is `[lengths,
*block]` over the documents of all rows, with length -1 for None.

`fingerprint` says from which class the values came (`plans.describe`), so that an equal class at the other end may take them unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from itertools import islice
from typing import Any

import msgpack
import numpy as np
from docarray.array.any_array import AnyDocArray
from docarray.typing.tensor.abstract_tensor import AbstractTensor

from ..errors import InvalidInput
from ..limits import MAX_DEPTH, check_count
from .cast import cast_column
from .kinds import Kind, Tag
from .plans import Plan, plan_of, rows_of
from .tensors import Stack, is_torch, pack, pack_stack, unpack, widened
from .values import STACK, TENSOR, TORCH, TORCH_STACK, Row, Rows, ext, from_ext, plain

VERSION = 1
_DOC, _DOCS = 0, 1
_NO_CLASS = b""
_INT64, _UINT64 = -(2**63), 2**64


def encode(docs: Sequence[Any], extra: dict[str, list[Any]] | None = None) -> bytes:
    """The body for `docs`: a DocList or DocVec, in order, with the columns of `extra` beside the documents' own."""
    kinds = {type(doc) for doc in docs}
    plan = plan_of(kinds.pop()) if len(kinds) == 1 else None
    if plan is not None and plan.flat and extra is None and len(docs) == 1:
        row = next(iter(docs)).__dict__  # by index a DocList takes a microsecond
        if type(row) is dict:
            return _dump(plan.fingerprint, [1, row, {}])
    rows = rows_of(docs)
    if extra:
        rows = [{**{name: column[index] for name, column in extra.items()}, **row} for index, row in enumerate(rows)]
    return _dump(plan.fingerprint if plan else _NO_CLASS, _block(rows, plan))


def dump(rows: list[Any]) -> bytes:
    """The body for rows whose class is not known here; nested `Row` and `Rows` lose that they are documents, nothing else."""
    return _dump(_NO_CLASS, _block(rows, None))


def load(body: bytes | memoryview) -> list[Any]:
    """The documents in `body` as plain rows; nested ones are `Row` and `Rows`."""
    _, block = _read(body)
    return _open(block, 0)


def decode(body: bytes | memoryview, plan: Plan, *, trusted: bool) -> tuple[Any, dict[str, list[Any]] | None]:
    """`DocList` of the plan's class and the columns it has no field for. `trusted`: the body comes from a worker, not from a client."""
    fingerprint, block = _read(body, trusted=trusted)
    if trusted and fingerprint == plan.fingerprint and plan.casts is not None:
        unknown = _split(block, plan)
        return plan.doc_list(_documents(block, plan)), unknown
    return plan.read(_open(block, 0), refuse=Stack)


def _dump(fingerprint: bytes, block: list[Any]) -> bytes:
    return msgpack.packb([VERSION, fingerprint, *block], default=_pack_value)  # type: ignore[no-any-return]


def _pack_value(value: Any) -> Any:
    """What msgpack asks for: an extension, or the value in simpler types."""
    if isinstance(value, np.ndarray):
        return msgpack.ExtType(TENSOR, pack(value))
    if is_torch(value):
        return msgpack.ExtType(TORCH, pack(value))
    found = ext(value)
    if found:
        return msgpack.ExtType(*found)
    if isinstance(value, AbstractTensor):
        return msgpack.ExtType(TENSOR, pack(widened(value)))
    if isinstance(value, AnyDocArray):  # a DocVec; a DocList is a list for msgpack
        return list(value)
    return plain(value)


def _block(rows: list[Any], plan: Plan | None) -> list[Any]:
    """`[count, content, nested]` of rows; with a plan all have the same fields, except those of partly constructed documents."""
    if plan is None or any(row.keys() != rows[0].keys() for row in islice(rows, 1, None)):
        return [len(rows), rows, {}]
    if len(rows) == 1:
        return _single(rows[0], plan)
    names = list(rows[0])
    nested = {name: _DOCS if tag is Tag.DOCS else _DOC for name, tag in plan.nested.items() if name in rows[0]}
    content: dict[str, Any] = {}
    for name in names:
        column = [row[name] for row in rows]
        content[name] = _nested_column(column, nested[name]) if name in nested else _column(column, name is names[0])
    return [len(rows), content, nested]


def _single(row: dict[str, Any], plan: Plan) -> list[Any]:
    if not plan.nested:
        return [1, row, {}]
    nested = {name: _DOCS if tag is Tag.DOCS else _DOC for name, tag in plan.nested.items() if row.get(name) is not None}
    content = row | {name: _nested_column([row[name]], form) for name, form in nested.items()}
    return [1, content, nested]


def _column(column: list[Any], first: bool) -> Any:
    """The wire form of one field's values. The first column is never shortened to nil: it proves the count."""
    head = column[0]
    if head is None:
        return None if not first and all(value is None for value in column) else column
    if isinstance(head, np.ndarray) or is_torch(head):
        packed = pack_stack(column)
        if packed is not None:
            return msgpack.ExtType(TORCH_STACK if is_torch(head) else STACK, packed)
    return column


def _nested_column(column: list[Any], form: int) -> list[Any]:
    if form == _DOC:
        lengths = [-1 if doc is None else 1 for doc in column]
        docs = [doc for doc in column if doc is not None]
    else:
        lengths = [-1 if group is None else len(group) for group in column]
        docs = [doc for group in column if group is not None for doc in group]
    kinds = {type(doc) for doc in docs}
    plan = plan_of(kinds.pop()) if len(kinds) == 1 else None
    return [lengths, *_block(rows_of(docs), plan)]


def _read(body: bytes | memoryview, *, trusted: bool = False) -> tuple[bytes, list[Any]]:
    """Fingerprint and block of a body."""
    try:
        message = msgpack.unpackb(body, strict_map_key=not trusted, ext_hook=_unpack_ext, timestamp=3)
    except ValueError:  # keys that are not text, which have to be looked at, or nothing that can be read
        message = msgpack.unpackb(body, strict_map_key=False, ext_hook=_unpack_ext, timestamp=3, object_pairs_hook=_checked_map)
    if not isinstance(message, list) or len(message) < 5 or message[0] != VERSION:
        raise InvalidInput(f"not a columns body of version {VERSION}")
    return message[1], message[2:5]


def _unpack_ext(code: int, data: bytes) -> Any:
    if code in (STACK, TORCH_STACK):
        return Stack(unpack(data, torch=code == TORCH_STACK))
    return from_ext(code, data)


def _checked_map(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """A map whose keys nobody can choose so that they collide: larger integers, decimals and UUIDs hash to what their author likes."""
    pairs = list(pairs)
    for key, _ in pairs:
        if type(key) is not str and (type(key) not in (int, bytes, float, date) or (type(key) is int and not _INT64 <= key < _UINT64)):
            raise InvalidInput(f"a map key of type {type(key).__name__}: use text or 64-bit integers")
    return dict(pairs)


def _split(block: list[Any], plan: Plan) -> dict[str, list[Any]] | None:
    """Take the columns that the class has no field for out of a block."""
    count, content, nested = block
    if plan.keeps_unknown or not isinstance(content, dict) or content.keys() <= plan.names:
        return None
    names = [name for name in content if name not in plan.names]
    apart = _open([count, {name: content.pop(name) for name in names}, {name: nested.pop(name) for name in names if name in nested}], 0)
    return {name: [row[name] for row in apart] for name in names}


def _documents(block: list[Any], plan: Plan) -> list[Any]:
    """The documents of a block from the plan's class: cast where the fields are the same, validated where they differ (a subclass, say)."""
    count, content, nested = block
    if plan.casts is None or not isinstance(content, dict) or content.keys() != plan.names:
        return list(plan.read(_open(block, 0))[0])
    check_count(count)
    for name in nested:
        documents = _nested_documents(content[name], plan.kinds[name])
        content[name] = documents[0] if count == 1 else documents
    if count == 1:
        for name, cast in plan.casts.items():
            if content[name] is not None:
                content[name] = cast(content[name])
        return [plan.construct(content)]
    casts = plan.casts
    columns = [[None] * count if column is None else cast_column(casts.get(name), column) for name, column in content.items()]
    return [plan.construct(dict(zip(content, values, strict=True))) for values in zip(*columns, strict=True)]


def _nested_documents(column: list[Any], kind: Kind) -> list[Any]:
    lengths, *block = column
    plan = plan_of(kind.annotation.doc_type if kind.tag is Tag.DOCS else kind.annotation)
    documents = iter(_documents(block, plan))
    if kind.tag is Tag.DOC:
        return [None if length < 0 else next(documents) for length in lengths]
    return [None if length < 0 else plan.doc_list(list(islice(documents, length))) for length in lengths]


def _open(block: list[Any], depth: int) -> list[Any]:
    """The rows of a block without their classes. Raises `InvalidInput` for blocks that contradict themselves."""
    count, content, nested = block
    if depth > MAX_DEPTH or not isinstance(count, int) or not isinstance(nested, dict):
        raise InvalidInput(f"not a block of documents, or more than {MAX_DEPTH} inside each other")
    check_count(count)
    if isinstance(content, list):
        if len(content) != count or not all(isinstance(row, dict) for row in content):
            raise InvalidInput(f"{count} documents announced, {len(content)} rows found")
        return content
    if count == 1 and isinstance(content, dict) and content and not nested:
        return [content]
    if count == 1:
        content = {name: [value] for name, value in content.items()}
    columns = {name: _open_column(name, column, count, nested.get(name), depth) for name, column in content.items()}
    if not any(_proves(content[name], count) for name in columns):
        raise InvalidInput(f"{count} documents announced, no column holds as many")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _open_column(name: str, column: Any, count: int, form: int | None, depth: int) -> list[Any]:
    if form is not None:
        return _open_nested(name, column[0] if count == 1 else column, count, form, depth)
    values = [None] * count if column is None else column.rows() if isinstance(column, Stack) else column
    if not isinstance(values, list) or len(values) != count:
        raise InvalidInput(f"column {name}: not a list of {count} values")
    return values


def _open_nested(name: str, column: Any, count: int, form: int, depth: int) -> list[Any]:
    lengths, *block = column
    rows = [Row(row) for row in _open(block[:3], depth + 1)]
    if len(lengths) != count or sum(length for length in lengths if length > 0) != len(rows):
        raise InvalidInput(f"column {name}: {len(rows)} documents in {len(lengths)} rows do not add up")
    left = iter(rows)
    if form == _DOC:
        return [None if length < 0 else next(left) for length in lengths]
    return [None if length < 0 else Rows(islice(left, length)) for length in lengths]


def _proves(column: Any, count: int) -> bool:
    """Whether a column has at least a byte for each document: else a few bytes could ask for a million of them."""
    if isinstance(column, Stack):
        return bool(column.array.nbytes >= count)
    return isinstance(column, list) and (len(column) == count or (bool(column) and isinstance(column[0], list) and len(column[0]) == count))
