"""What a field's annotation means to the codec: a small tree of `Kind`, from which each wire form compiles its converters."""

from __future__ import annotations

import collections.abc
import types
import typing
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from docarray.array.any_array import AnyDocArray
from docarray.base_doc.doc import BaseDocWithoutId
from docarray.typing.abstract_type import AbstractType
from docarray.typing.tensor.abstract_tensor import AbstractTensor


class Tag(Enum):
    SCALAR = "scalar"  # comes out of msgpack as it went in
    BYTES = "bytes"
    TEXT = "text"  # a docarray class of str: ID, URLs
    ENUM = "enum"
    TENSOR = "tensor"
    DOC = "doc"
    DOCS = "docs"
    LIST = "list"
    SEQUENCE = "sequence"  # set, tuple and other containers of one item type
    MAP = "map"
    UNION = "union"
    LOOSE = "loose"  # anything goes: Any, object, bare list or dict
    OTHER = "other"  # only pydantic knows


@dataclass(frozen=True, slots=True)
class Kind:
    tag: Tag
    annotation: Any
    items: tuple[Kind, ...] = ()

    @property
    def deep(self) -> bool:
        """May hold values nested without a bound that the annotation sets."""
        return self.tag in _DEEP or any(item.deep for item in self.items)


_DEEP = {Tag.LOOSE, Tag.DOC, Tag.DOCS, Tag.OTHER}
_SCALARS = (str, int, float, bool, type(None), datetime, date, time, timedelta, UUID, Decimal, complex)
_LOOSE = (Any, object, list, dict, set, tuple, typing.List, typing.Dict, typing.Set, typing.Tuple)  # noqa: UP006  (users write these)
_SEQUENCES = (set, frozenset, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Set)
_MAPS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def kind_of(annotation: Any) -> Kind:
    """The kind of an annotation as pydantic stores it in `FieldInfo.annotation`.

    Optional[X] has the kind of X: every converter skips None.
    """
    origin = get_origin(annotation)
    if origin is Annotated:
        return kind_of(get_args(annotation)[0])
    if any(annotation is loose for loose in _LOOSE):
        return Kind(Tag.LOOSE, annotation)
    if origin is Union or origin is types.UnionType:
        return _union(annotation)
    if origin is Literal:
        return Kind(Tag.SCALAR if all(type(value) in _SCALARS for value in get_args(annotation)) else Tag.OTHER, annotation)
    target = origin or annotation
    if isinstance(target, type):
        return _container(annotation, target) or _class(annotation, target)
    return Kind(Tag.OTHER, annotation)


def _union(annotation: Any) -> Kind:
    members = [member for member in get_args(annotation) if member is not type(None)]
    if len(members) == 1:
        return kind_of(members[0])
    items = tuple(kind_of(member) for member in members)
    if all(item.tag is Tag.SCALAR for item in items):
        return Kind(Tag.SCALAR, annotation)
    return Kind(Tag.UNION, annotation, items)


def _container(annotation: Any, target: type) -> Kind | None:
    args = [argument for argument in get_args(annotation) if argument is not Ellipsis]
    if not args or issubclass(target, AnyDocArray):
        return None
    items = tuple(kind_of(argument) for argument in args)
    if target is list:
        return Kind(Tag.LIST, annotation, items)
    if target in _SEQUENCES:
        return Kind(Tag.SEQUENCE if len(items) == 1 else Tag.OTHER, annotation, items)
    if target in _MAPS:
        return Kind(Tag.MAP, annotation, items)
    return None


def _class(annotation: Any, target: type) -> Kind:
    if target in _SCALARS:
        return Kind(Tag.SCALAR, target)
    if issubclass(target, AnyDocArray):
        return Kind(Tag.DOCS, target)
    if issubclass(target, BaseDocWithoutId):
        return Kind(Tag.DOC, target)
    if AbstractTensor in target.__mro__:  # its metaclass answers issubclass by shape
        return Kind(Tag.TENSOR, target)
    if target is bytes or issubclass(target, bytes) and issubclass(target, AbstractType):
        return Kind(Tag.BYTES, target)
    if issubclass(target, str) and issubclass(target, AbstractType):
        return Kind(Tag.TEXT, target)
    return Kind(Tag.ENUM if issubclass(target, Enum) else Tag.OTHER, annotation)
