"""The registry of wire forms by content type, and the border at which their errors become ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from docarray.base_doc.doc import BaseDocWithoutId
from docarray.documents.legacy import LegacyDocument

from ..envelope import COLUMNS, EMPTY, JSON, PROTOBUF
from ..errors import InvalidInput, StreamflowError
from ..limits import check_depth
from . import columns, json_form, protobuf
from .plans import plan_of, rows_of
from .tensors import Stack

_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})  # nothing lies in them
Dump = Callable[[list[Any]], bytes]
Load = Callable[[bytes | memoryview], list[Any]]

_DUMP: dict[str, Dump] = {COLUMNS: columns.dump, JSON: json_form.dump, PROTOBUF: protobuf.dump, EMPTY: lambda rows: b""}
_LOAD: dict[str, Load] = {
    COLUMNS: columns.load,
    JSON: lambda body: json_form.load(body)[0],
    PROTOBUF: protobuf.load,
    EMPTY: lambda body: [],
}


def encode(docs: Sequence[Any], content_type: str, extra: dict[str, list[Any]] | None) -> bytes:
    """See `codec.encode`."""
    try:
        if content_type == COLUMNS:
            return columns.encode(docs, extra)
        return _DUMP[content_type](_rows(docs, extra))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise StreamflowError(_blame(_rows(docs, extra), content_type, error)) from error


def decode(
    body: bytes | memoryview, content_type: str, doc_type: type[BaseDocWithoutId] | None, trusted: bool, ids: str
) -> tuple[Any, dict[str, Any] | None, dict[str, list[Any]] | None]:
    """See `codec.decode`."""
    plan = plan_of(doc_type or LegacyDocument)
    try:
        if content_type == COLUMNS:
            docs, unknown = columns.decode(body, plan, trusted=trusted)
            return docs, None, unknown
        if content_type == JSON:
            return json_form.decode(body, plan, ids)
        docs, unknown = plan.read(_LOAD[content_type](body))
        return docs, None, unknown
    except InvalidInput:
        raise
    except Exception as error:  # the border for bytes from anywhere: msgpack, protobuf, orjson and numpy each have their own errors
        raise InvalidInput(_unreadable(content_type, error)) from error


def transcode(body: bytes | memoryview, content_type: str, accept: str) -> bytes:
    """See `codec.transcode`."""
    return dump_rows(load_rows(body, content_type), accept)


def split(body: bytes | memoryview, content_type: str) -> list[bytes]:
    """See `codec.split`."""
    rows = load_rows(body, content_type)
    return [bytes(body)] if len(rows) == 1 else [dump_rows([row], content_type) for row in rows]


def load_rows(body: bytes | memoryview, content_type: str) -> list[Any]:
    """The documents in `body` as rows, without any class. Raises `InvalidInput`."""
    try:
        rows = _LOAD[content_type](body)
        for index, row in enumerate(rows):
            if not isinstance(row, dict):
                raise InvalidInput(f"data[{index}]: Input should be a document")
            for name, value in row.items():
                if type(value) not in _ATOMS:
                    check_depth(value, f"data[{index}].{name}", refuse=Stack)
        return rows
    except InvalidInput:
        raise
    except Exception as error:  # as in decode
        raise InvalidInput(_unreadable(content_type, error)) from error


def dump_rows(rows: list[Any], accept: str) -> bytes:
    """`rows` in the form `accept`. Raises `InvalidInput` for a value that the form cannot hold."""
    try:
        return _DUMP[accept](rows)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(_blame(rows, accept, error)) from error


def _rows(docs: Sequence[Any], extra: dict[str, list[Any]] | None) -> list[dict[str, Any]]:
    rows = rows_of(docs)
    if not extra:
        return rows
    return [{**{name: column[index] for name, column in extra.items()}, **row} for index, row in enumerate(rows)]


def _blame(rows: list[dict[str, Any]], content_type: str, error: Exception) -> str:
    """A sentence that names the first document and field which the form cannot hold."""
    for index, row in enumerate(rows):
        for name, value in row.items():
            try:
                _DUMP[content_type]([{name: value}])
            except (TypeError, ValueError, OverflowError, RecursionError) as found:
                return f"document {index}, field {name}: cannot be sent as {content_type}: {found}"
    return f"documents cannot be sent as {content_type}: {error}"


def _unreadable(content_type: str, error: Exception) -> str:
    return f"body is not readable as {content_type or 'no content'}: {type(error).__name__}: {str(error)[:200]}"
