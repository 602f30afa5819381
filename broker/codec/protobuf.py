"""The form of gRPC: jina's DataContentProto (`content.py`) with documents as docarray's own messages.

Documents are walked node by node into plain rows, which pydantic validates. docarray's `from_protobuf` costs several times more and drops
fields that the class lacks.

docarray's integers have 32 bits. Larger ones are sent as double where that is exact (up to 2**53), else as decimal text: a field declared
`int` reads both back as the same integer, in docarray too. Dates, UUIDs, decimals, enums and keys of dicts that are not text are sent as
text, which the annotation turns back; torch's bfloat16 as float32.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from docarray.array.any_array import AnyDocArray
from docarray.base_doc.doc import BaseDocWithoutId
from docarray.proto import DocListProto, DocProto, NodeProto
from docarray.typing.abstract_type import AbstractType
from docarray.typing.tensor.abstract_tensor import AbstractTensor

from ..errors import InvalidInput
from ..limits import MAX_DEPTH
from . import content
from .plans import rows_of
from .tensors import check_dtype, from_parts, is_torch, torch_module, widened
from .values import Row, Rows, plain

_INT32_MIN, _INT32_MAX = -(2**31), 2**31 - 1
_EXACT = 2**53


def dump(rows: list[Any]) -> bytes:
    """DataContentProto with `docs`. Raises `TypeError` or `ValueError` for values without a protobuf form."""
    message = DocListProto()
    for row in rows:
        _write_row(message.docs.add(), row, 0)
    return content.write(message)


def load(body: bytes | memoryview) -> list[Any]:
    """The documents in a DataContentProto as plain rows; nested ones are `Row` and `Rows`. No set field means no documents."""
    return [_read_row(doc, 0) for doc in content.read(bytes(body))]


def _read_row(doc: DocProto, depth: int) -> Row:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"more than {MAX_DEPTH} documents inside each other")
    return Row((name, _read_node(node, depth + 1)) for name, node in doc.data.items())


def _read_node(node: NodeProto, depth: int) -> Any:
    """The value of a node. Type tags of text and bytes are left to the receiving class, which knows better."""
    field = node.WhichOneof("content")
    if field is None:
        return None
    value = getattr(node, field)
    if field in _PLAIN:
        return value
    if depth > MAX_DEPTH:
        raise InvalidInput(f"more than {MAX_DEPTH} levels inside each other")
    if field == "ndarray":
        return _read_tensor(node)
    if field == "doc":
        return _read_row(value, depth)
    if field == "doc_array":
        return Rows(_read_row(doc, depth) for doc in value.docs)
    if field == "dict":
        return {name: _read_node(item, depth + 1) for name, item in value.data.items()}
    return _CONTAINERS[field](_read_node(item, depth + 1) for item in value.data)


_PLAIN = frozenset(("text", "integer", "float", "boolean", "blob"))
_CONTAINERS: dict[str, Any] = {"list": list, "set": set, "tuple": tuple}


def _read_tensor(node: NodeProto) -> Any:
    dense = node.ndarray.dense
    if not dense.buffer and not dense.shape:
        raise InvalidInput("a tensor without shape and data")
    array = from_parts(_with_order(dense.dtype), tuple(dense.shape), dense.buffer)
    torch = torch_module()
    return torch.from_numpy(array) if torch is not None and node.type.endswith(("torch_tensor", "torch_embedding")) else array


def _with_order(dtype: str) -> str:
    """numpy's name with byte order; other clients send `float32` for `<f4`, or nothing for docarray's default."""
    if dtype and dtype[0] in "<>|=":
        return dtype
    if dtype and not _NAMED_DTYPE.fullmatch(dtype):
        raise InvalidInput(f"a tensor of dtype {dtype[:20]!r} is not read")
    return np.dtype(dtype or "float64").str


_NAMED_DTYPE = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)")


def _write_row(doc: DocProto, row: dict[str, Any], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} levels inside each other")
    data = doc.data
    for name, value in row.items():
        node = data[name]
        kind = type(value)
        if kind is str:
            node.text = value
        elif value is not None:
            _write_node(node, value, depth)


def _write_node(node: NodeProto, value: Any, depth: int) -> None:
    if isinstance(value, str | bytes):
        _write_text(node, value)
    elif isinstance(value, bool):
        node.boolean = value
    elif isinstance(value, int):
        _write_integer(node, value)
    elif isinstance(value, float):
        node.float = value
    elif isinstance(value, np.ndarray | AbstractTensor) or is_torch(value):
        _write_tensor(node, value)
    else:
        _write_nested(node, value, depth + 1)


def _write_text(node: NodeProto, value: str | bytes) -> None:
    if isinstance(value, str):
        node.text = value
    else:
        node.blob = value
    if isinstance(value, AbstractType) and value._proto_type_name:
        node.type = value._proto_type_name


def _write_integer(node: NodeProto, value: int) -> None:
    if _INT32_MIN <= value <= _INT32_MAX:
        node.integer = value
    elif -_EXACT <= value <= _EXACT:
        node.float = value
    else:
        node.text = str(value)


def _write_tensor(node: NodeProto, value: Any) -> None:
    array = widened(value)
    check_dtype(array)
    dense = node.ndarray.dense
    dense.buffer = array.tobytes()
    dense.shape.extend(array.shape)
    dense.dtype = array.dtype.str
    node.type = getattr(value, "_proto_type_name", None) or ("torch_tensor" if is_torch(value) else "ndarray")


def _write_nested(node: NodeProto, value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} levels inside each other")
    if isinstance(value, Row | BaseDocWithoutId):
        _write_row(node.doc, value if isinstance(value, Row) else rows_of([value])[0], depth)
        node.doc.SetInParent()
    elif isinstance(value, Rows | AnyDocArray):
        node.doc_array.SetInParent()
        for doc in value:
            _write_row(node.doc_array.docs.add(), doc if isinstance(doc, dict) else rows_of([doc])[0], depth)
    elif isinstance(value, dict):
        node.dict.SetInParent()
        for key, item in value.items():
            _write_value(node.dict.data[_key(key)], item, depth)
    elif isinstance(value, list | tuple | set | frozenset):
        _write_items(node, value, depth)
    else:
        _write_value(node, plain(value), depth)


def _write_items(node: NodeProto, value: Any, depth: int) -> None:
    name = "list" if isinstance(value, list) else "tuple" if isinstance(value, tuple) else "set"
    items = getattr(node, name)
    items.SetInParent()
    for item in value:
        _write_value(items.data.add(), item, depth)


def _write_value(node: NodeProto, value: Any, depth: int) -> None:
    if value is not None:
        _write_node(node, value, depth)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(plain(key))
