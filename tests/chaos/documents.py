"""Requests that are sound outside and lie inside: documents, tensors and columns that no client of ours would write."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgpack
import numpy as np
from docarray import BaseDoc, DocList
from docarray.proto import DocListProto, NodeProto

from streamflow.broker import codec
from streamflow.broker.envelope import COLUMNS
from streamflow.gateway.proto import shallow_pb2 as pb
from streamflow.gateway.proto import streamflow_pb2 as own
from tests.e2e.executors.steps import Item, Shape
from tests.e2e.wires import as_message

from .mutations import NUMBERS, VALUES, WORDS, broken, changed

DOCS = [Item(id=f"d{at}", text="some text", number=at, tags=["a", "b"]) for at in range(3)]
SHAPES = [
    Shape(
        id=f"s{at}", text="t", vector=np.arange(3.0), free=np.ones((2, 2), np.int32), tags={"a": {"b": [1]}}, parts=DocList[Item](DOCS[:2])
    )
    for at in range(2)
]
SHAPES_JSON = [
    {
        "id": f"s{at}", "text": "t", "vector": [0.0, 1.0, 2.0], "free": [[1, 1], [1, 1]], "tags": {"a": {"b": [1]}},
        "parts": [{"id": "p", "text": "some text", "number": 1, "tags": ["a"]}],
    }
    for at in range(2)
]  # fmt: skip
DTYPES = [
    "<f8",
    "<f4",
    "|u1",
    "|O",
    "O",
    "<U9999",
    "V8",
    "<M8[ns]",
    "f8,f8",
    "(2,2)f4",
    "bool",
    "",
    "\x00",
    ">i8",
    "|S0",
    "float128",
    "__import__",
]
SIZES = [0, 1, 3, 7, 2**16, 2**31 - 1, 2**32 - 1]
TYPES = [
    "ndarray",
    "torch_tensor",
    "tensorflow_tensor",
    "jax_array",
    "id",
    "image_url",
    "text_url",
    "any_url",
    "bytes",
    "mesh",
    "",
    "\U0001f600",
]
FIELDS = ["id", "text", "number", "tags", "vector", "free", "parts", "unknown", "__class__", ""]
ENVELOPE_KEYS = ["dl", "p", "rs", "tr", "st", "cl", "tc", "te", "ps", "v", "ln", "ci", "fi", "sm", "so", "pc", "at", "rn", "h"]
SMALL_VALUES = [value for value in VALUES if not isinstance(value, int) or abs(value) < 2**63]
ENDPOINTS: dict[str, tuple[Sequence[BaseDoc], type[BaseDoc]]] = {"/run": (DOCS, Item), "/shapes": (SHAPES, Shape)}


def broken_documents(chance: random.Random) -> bytes:
    """A sound DataRequest with broken documents."""
    endpoint = chance.choice([*ENDPOINTS])
    docs, _ = ENDPOINTS[endpoint]
    request = as_message(docs, endpoint)
    content = pb.DataContent.FromString(request.data)
    documents = DocListProto.FromString(content.docs)
    for _ in range(chance.randint(1, 3)):
        document = chance.choice(documents.docs)
        document.data[chance.choice(FIELDS)].CopyFrom(strange_node(chance))
    content.docs = documents.SerializeToString()
    request.data = content.SerializeToString() if chance.random() < 0.9 else broken(chance, content.SerializeToString(), [b"\x0a", b"\x62"])
    return bytes(request.SerializeToString())


def strange_node(chance: random.Random, depth: int = 0) -> NodeProto:
    """A field's value of any kind, with any type named."""
    node = NodeProto()
    chance.choice(_FILLS)(chance, node, depth)
    if chance.random() < 0.6:
        node.type = chance.choice(TYPES)
    return node


def _array(chance: random.Random, node: NodeProto, _depth: int) -> None:
    dense = node.ndarray.dense
    dense.buffer = bytes(chance.choice((0, 1, 8, 24, 25, 4096)))
    dense.shape.extend(chance.choice(SIZES) for _ in range(chance.randint(0, 4)))
    dense.dtype = chance.choice(DTYPES)


def _scalar(chance: random.Random, node: NodeProto, _depth: int) -> None:
    kind = chance.randrange(5)
    if kind == 0:
        node.text = chance.choice(WORDS)
    elif kind == 1:
        node.integer = chance.choice((0, -1, 2**31 - 1))
    elif kind == 2:
        node.float = chance.choice((float("nan"), float("inf"), -0.0, 1e308))
    elif kind == 3:
        node.boolean = True
    else:
        node.blob = bytes(chance.randrange(64))


def _nested(chance: random.Random, node: NodeProto, depth: int) -> None:
    if depth > chance.choice((2, 4, 20)):
        node.text = "deep enough"
        return
    inner = strange_node(chance, depth + 1)
    chance.choice((
        lambda: node.list.data.append(inner),
        lambda: node.set.data.append(inner),
        lambda: node.tuple.data.append(inner),
        lambda: node.dict.data[chance.choice(WORDS)].CopyFrom(inner),
        lambda: node.doc.data[chance.choice(FIELDS)].CopyFrom(inner),
        lambda: node.doc_array.docs.add().data[chance.choice(FIELDS)].CopyFrom(inner),
    ))()  # fmt: skip


_FILLS: list[Callable[[random.Random, NodeProto, int], None]] = [_array, _array, _scalar, _nested]


def broken_columns(chance: random.Random) -> bytes:
    """A sound Request of our own with broken columns, or broken parameters."""
    endpoint = chance.choice([*ENDPOINTS])
    docs, kind = ENDPOINTS[endpoint]
    columns = msgpack.unpackb(codec.encode(DocList[kind](docs), COLUMNS), strict_map_key=False)  # type: ignore[valid-type]
    request = own.Request(endpoint=endpoint, content_type=COLUMNS, body=_packed(_lies(chance, columns)))
    if chance.random() < 0.3:
        request.parameters = _packed(changed(chance, {"a": [1, {"b": None}], "c": "d" * 40}))
    return bytes(request.SerializeToString())


def _lies(chance: random.Random, columns: list[Any]) -> list[Any]:
    """One to three columns replaced, cut, or of another tensor; the frame around them changed now and then."""
    block = columns[3]
    for _ in range(chance.randint(1, 3)):
        name = chance.choice([*block, *FIELDS]) if block else "id"
        block[name] = _lie(chance, block.get(name))
    if chance.random() < 0.3:
        columns[chance.randrange(len(columns))] = chance.choice([*NUMBERS, *VALUES])
    return columns


def _lie(chance: random.Random, column: Any) -> Any:
    if isinstance(column, msgpack.ExtType):
        return msgpack.ExtType(chance.choice((column.code, column.code, 0, 1, 3, 127)), broken(chance, column.data, [b"\xff", b"\x00"]))
    return changed(chance, column if column is not None else [None, None])


def _packed(value: Any) -> bytes:
    """msgpack, with what it cannot hold left out."""
    return bytes(msgpack.packb(value, use_bin_type=True, unicode_errors="surrogatepass", default=str))


def envelopes(seed: int, number: int, valid: list[bytes]) -> Iterator[bytes]:
    """`number` messages of a queue: fields of other types, broken headers, broken bodies. The reply subject is nobody's."""
    chance = random.Random(seed)
    for at in range(number):
        message = chance.choice(valid)
        end = 4 + int.from_bytes(message[:4], "big")
        header: dict[str, Any] = msgpack.unpackb(message[4:end], strict_map_key=False) | {"re": f"sf.reply.spy.{at}", "id": f"spy{at}"}
        if at % 3 == 0:
            for _ in range(chance.randint(1, 3)):
                header[chance.choice([*header, *ENVELOPE_KEYS])] = chance.choice([*SMALL_VALUES, [1, 2], ["a"] * 6, [["a"]], b"x", 1e300])
        packed = _packed(header)
        whole = len(packed).to_bytes(4, "big") + packed + message[end:]
        yield whole if at % 3 == 0 else broken(chance, whole, [b"\xff", b"\x00"]) if at % 3 == 1 else whole[:-5]
