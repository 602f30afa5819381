"""Giving values that a worker wrote the classes that the same document class had there: no check, as little work as the field allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from .kinds import Kind, Tag
from .tensors import Stack

Cast = Callable[[Any], Any]


def cast_of(kind: Kind) -> Cast | None:
    """What turns a value as msgpack delivers it (never None) into the field's own, or None when it already is."""
    if kind.tag in (Tag.SCALAR, Tag.LOOSE) or kind.annotation is bytes:
        return None
    if kind.tag in (Tag.TEXT, Tag.BYTES, Tag.ENUM):
        made: Cast = kind.annotation  # the class itself
        return made
    if kind.tag is Tag.TENSOR:
        return TensorCast(kind.annotation)
    if kind.tag in (Tag.LIST, Tag.MAP) and all(item.tag in (Tag.SCALAR, Tag.LOOSE) or item.annotation is bytes for item in kind.items):
        return None
    return TypeAdapter(kind.annotation).validator.validate_python


def cast_column(cast: Cast | None, column: Any) -> Any:
    """One field of all documents: a list, or the rows of a stack."""
    if isinstance(column, Stack):
        return cast.rows(column) if isinstance(cast, TensorCast) else column.rows()
    if cast is None:
        return column
    return [None if value is None else cast(value) for value in column]


class TensorCast:
    """Gives tensors the docarray class of a field.

    A field such as AnyTensor decides by the value, so its answer for plain numpy arrays is remembered.
    """

    def __init__(self, target: Any) -> None:
        self._target = target.__unparametrizedcls__ or target  # the shape was checked where the document was made
        self._array_class: Any = None

    def __call__(self, value: Any) -> Any:
        if self._array_class is not None and type(value) is np.ndarray:
            return value.view(self._array_class)
        made = self._target._docarray_validate(value)
        if type(value) is np.ndarray and isinstance(made, np.ndarray):
            self._array_class = type(made)
        return made

    def rows(self, stack: Stack) -> list[Any]:
        """The rows of a stack, each of the field's class and a view of the stack."""
        rows = stack.rows()
        if isinstance(stack.array, np.ndarray) and len(rows) > 1:
            self(rows[0])
            if self._array_class is not None:
                return Stack(stack.array.view(self._array_class)).rows()
        return [self(row) for row in rows]
