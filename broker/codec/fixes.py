"""What a value needs before pydantic reads it as a field: tensors from lists, bytes from base64, also inside nested documents and
containers.

JSON has neither type, and bodies that were transcoded from JSON keep its forms, so all forms are read this way. Tensors are made here
rather than by docarray, which takes lists of anything, and a bare number for the size of an uninitialised array.
"""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from .kinds import Kind, Tag
from .tensors import from_lists, is_torch

Fix = Callable[[Any], Any]
Fixes = dict[str, Fix]
FixesOf = Callable[[Any], Fixes]


class Misfit(ValueError):
    """A value that cannot be read as what its field is; `path` leads to it from the row."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path


def fix_of(kind: Kind, fixes_of: FixesOf) -> Fix | None:
    """What turns a value without type, as JSON has them (never None), into one that pydantic reads as the kind, or None for nothing to do.

    `fixes_of` gives the fixes of a nested document class; it is asked when a value comes, since classes may hold themselves.
    """
    if kind.tag is Tag.TENSOR:
        return _tensor
    if kind.tag is Tag.BYTES:
        return _bytes
    if kind.tag is Tag.DOC:
        return functools.partial(_document, kind.annotation, fixes_of)
    if kind.tag is Tag.DOCS:
        return functools.partial(_each, functools.partial(_document, kind.annotation.doc_type, fixes_of))
    if kind.tag is Tag.UNION:
        return _union(kind, fixes_of)
    if kind.tag in (Tag.LIST, Tag.SEQUENCE, Tag.MAP):
        inner = fix_of(kind.items[-1], fixes_of)
        return inner and functools.partial(_each, inner)
    return None


def fix_row(row: Any, fixes: Fixes) -> None:
    """Put every value of a row into the form that pydantic reads. Raises `Misfit`."""
    if not isinstance(row, dict):
        return  # pydantic says what is wrong, or reads it: TextDoc takes a bare text
    for name, fix in fixes.items():
        value = row.get(name)
        if value is not None:
            row[name] = _at(f".{name}", fix, value)


def _at(step: str, fix: Fix, value: Any) -> Any:
    try:
        return fix(value)
    except Misfit as error:
        raise Misfit(step + error.path, str(error)) from error
    except (ValueError, TypeError, OverflowError) as error:
        raise Misfit(step, str(error)) from error


def _tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray) or is_torch(value):
        return value
    if isinstance(value, str):  # docarray reads JSON in JSON here; so do we, but with our bounds
        value = orjson.loads(value)
    return from_lists(value)


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value.translate(_URL_SAFE), validate=True)
    except binascii.Error as error:
        raise ValueError("Input should be base64") from error


_URL_SAFE = str.maketrans("-_", "+/")


def _document(doc_type: Any, fixes_of: FixesOf, value: Any) -> Any:
    fixes = fixes_of(doc_type)
    if fixes:
        fix_row(value, fixes)
    return value


def _each(fix: Fix, value: Any) -> Any:
    if isinstance(value, list):
        return [None if item is None else _at(f"[{index}]", fix, item) for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: None if item is None else _at(f".{key}", fix, item) for key, item in value.items()}
    return value


def _union(kind: Kind, fixes_of: FixesOf) -> Fix | None:
    """Only where the JSON type leaves one member: text is base64 when no member is text, a list a tensor when no member is a list."""
    tags = {item.tag for item in kind.items}
    takes_text = bool(tags & {Tag.SCALAR, Tag.TEXT, Tag.ENUM, Tag.LOOSE, Tag.OTHER})
    takes_list = bool(tags & {Tag.LIST, Tag.SEQUENCE, Tag.DOCS, Tag.LOOSE, Tag.OTHER})
    bytes_only, tensor_only = Tag.BYTES in tags and not takes_text, Tag.TENSOR in tags and not takes_list
    documents = [item.annotation for item in kind.items if item.tag is Tag.DOC]

    def fix(value: Any) -> Any:
        if isinstance(value, str):
            return _bytes(value) if bytes_only else value
        if isinstance(value, list):
            return _tensor(value) if tensor_only else value
        return _document(documents[0], fixes_of, value) if len(documents) == 1 else value

    return fix if bytes_only or tensor_only or len(documents) == 1 else None
