"""Single values that a wire form has no type for: dates, identifiers, large integers, models, sets.

`ext` and `from_ext` keep their Python type through msgpack. `plain` makes text, numbers, lists and dicts of them for JSON and protobuf,
which the receiving document class reads back by its annotation.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import numpy as np
import pydantic_core
from docarray.base_doc.doc import BaseDocWithoutId
from pydantic import BaseModel, RootModel

from .plans import rows_of
from .tensors import unpack

TENSOR, STACK, TORCH, TORCH_STACK = 1, 2, 3, 4
_DATETIME, _DATE, _TIME, _TIMEDELTA, _UUID, _DECIMAL, _INTEGER, _COMPLEX = 5, 6, 7, 8, 9, 10, 11, 12
_MAX_INTEGER_BYTES = 512
_MAX_DECIMAL_CHARS = 1024


class Row(dict[str, Any]):
    """A nested document whose class is not known here."""


class Rows(list[Any]):
    """A nested list of documents whose class is not known here."""


def ext(value: Any) -> tuple[int, bytes] | None:
    """Extension code and payload of a value that keeps its Python type through msgpack, or None."""
    writer = _WRITERS.get(type(value))
    return writer(value) if writer else None


def from_ext(code: int, data: bytes) -> Any:
    """The value of a non-tensor extension. Raises `ValueError` for an unknown code or a malformed payload."""
    reader = _READERS.get(code)
    if reader is None:
        raise ValueError(f"extension type {code} is not known")
    try:
        return reader(data)
    except (ArithmeticError, struct.error) as error:
        raise ValueError(f"{type(error).__name__} in extension type {code}") from error


def plain(value: Any) -> Any:
    """`value` in simpler types, one level: call again for what is inside. Raises `ValueError` for what has no such form."""
    if isinstance(value, BaseDocWithoutId):
        return rows_of([value])[0]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, RootModel):
        return value.root
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return pydantic_core.to_jsonable_python(value)


def _write_integer(value: int) -> tuple[int, bytes]:
    size = value.bit_length() // 8 + 1
    if size > _MAX_INTEGER_BYTES:
        raise ValueError(f"an integer of {value.bit_length()} bits cannot be sent")
    return _INTEGER, value.to_bytes(size, "big", signed=True)


def _read_integer(data: bytes) -> int:
    if len(data) > _MAX_INTEGER_BYTES:
        raise ValueError(f"an integer of {len(data)} bytes is not read")
    return int.from_bytes(data, "big", signed=True)


def _read_decimal(data: bytes) -> Decimal:
    if len(data) > _MAX_DECIMAL_CHARS:
        raise ValueError(f"a decimal of {len(data)} digits is not read")
    return Decimal(data.decode("ascii"))


_WRITERS: dict[type, Callable[[Any], tuple[int, bytes]]] = {
    int: _write_integer,  # msgpack asks only above 64 bits
    datetime: lambda value: (_DATETIME, value.isoformat().encode()),
    date: lambda value: (_DATE, value.isoformat().encode()),
    time: lambda value: (_TIME, value.isoformat().encode()),
    timedelta: lambda value: (_TIMEDELTA, struct.pack("<3i", value.days, value.seconds, value.microseconds)),
    UUID: lambda value: (_UUID, value.bytes),
    Decimal: lambda value: (_DECIMAL, str(value).encode()),
    complex: lambda value: (_COMPLEX, struct.pack("<2d", value.real, value.imag)),
}
_READERS: dict[int, Callable[[bytes], Any]] = {
    TENSOR: unpack,
    TORCH: lambda data: unpack(data, torch=True),
    _INTEGER: _read_integer,
    _DATETIME: lambda data: datetime.fromisoformat(data.decode("ascii")),
    _DATE: lambda data: date.fromisoformat(data.decode("ascii")),
    _TIME: lambda data: time.fromisoformat(data.decode("ascii")),
    _TIMEDELTA: lambda data: timedelta(*struct.unpack("<3i", data)),
    _UUID: lambda data: UUID(bytes=data),
    _DECIMAL: _read_decimal,
    _COMPLEX: lambda data: complex(*struct.unpack("<2d", data)),
}
