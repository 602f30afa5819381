"""Hostile bodies: bounds, and thousands of broken ones that may only be refused as `InvalidInput`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import orjson
import pytest
from docarray import BaseDoc, DocList
from docarray.documents.legacy import LegacyDocument
from docarray.proto import DocListProto
from docarray.typing import AnyTensor, NdArray

from streamflow.broker import limits
from streamflow.broker.codec import content, decode, encode, transcode
from streamflow.broker.envelope import COLUMNS, JSON, PROTOBUF
from streamflow.broker.errors import InvalidInput, StreamflowError

MUTATIONS = int(os.environ.get("STREAMFLOW_FUZZ", "2000"))


Matrix = NdArray[2, "x"]


class Leaf(BaseDoc):
    name: str
    vector: NdArray | None = None


class Item(BaseDoc):
    number: int = 5
    blob: bytes = b"\xff\x00\x01"
    any_tensor: AnyTensor | None = None
    shaped: Matrix | None = None
    texts: NdArray | None = None
    leaf: Leaf | None = None
    leaves: DocList[Leaf] = DocList[Leaf]()
    tags: dict[str, Any] = {}
    mixed: int | list[NdArray] | dict[str, float] = 1


def full(number: int) -> Item:
    return Item(
        number=number,
        any_tensor=np.arange(4, dtype="f2"),
        shaped=np.ones((2, 3)),
        texts=np.array(["ab", "c"]),
        leaf=Leaf(name="a", vector=np.array([True, False])),
        leaves=[Leaf(name="b"), Leaf(name="c", vector=np.zeros((0, 4)))],
        tags={"a": [1, 2.5, {"b": None}], "c": {"d": "e"}},
        mixed=[np.array([1, 2])],
    )


def bodies(content_type: str) -> list[tuple[bytes, Any]]:
    items = [[full(1)], [full(1), Item(), full(3)], [full(index) for index in range(3)], []]
    legacy = LegacyDocument(text="a", embedding=np.ones(3), tags={"a": 1}, chunks=[LegacyDocument(text="b")])
    return [*((encode(docs, content_type), Item) for docs in items), (encode([legacy, legacy], content_type), LegacyDocument)]


SHARP = b'\x00\x01\x7f\x80\xc0\xdd\xdf\xff[{"-9'  # bytes that mean lengths, ends and types in one form or another


def mutated(body: bytes, dice: random.Random) -> bytes:
    """One to four random injuries: a byte changed, a bit turned, a piece cut out, doubled, or filled with noise."""
    data = bytearray(body)
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(data) + 1)
        stop = min(len(data), start + dice.choice((1, 1, 2, 8, 64)))
        kind = dice.randrange(6)
        if kind == 0:
            data[start:stop] = dice.randbytes(stop - start)
        elif kind == 1:
            data[start:stop] = b""
        elif kind == 2:
            data[start:start] = data[start:stop]
        elif kind == 3:
            data[start : start + 1] = bytes([dice.choice(SHARP)])
        elif kind == 4 and data:
            data[start % len(data)] ^= 1 << dice.randrange(8)
        else:
            del data[start : None if dice.random() < 0.3 else stop]
    return bytes(data)


ODD = [None, True, -1, 2**63, 1e308, float("nan"), "", "x" * 40, b"\xff", [], {}, [[]], [1, "a", None], {"a": {}}, {"\0": []}]


def distorted(value: Any, dice: random.Random) -> Any:
    """A copy of a tree of lists and maps with about one node in twenty replaced by something that does not belong there."""
    if dice.random() < 0.05:
        return dice.choice(ODD)
    if isinstance(value, dict):
        return {
            dice.choice(("id", "tags", "z", key)) if dice.random() < 0.03 else key: distorted(item, dice) for key, item in value.items()
        }
    if isinstance(value, list):
        return [distorted(item, dice) for item in value for _ in range(dice.choice((0, 2)) if dice.random() < 0.03 else 1)]
    if isinstance(value, msgpack.ExtType):
        code = dice.randrange(14) if dice.random() < 0.03 else value.code
        return msgpack.ExtType(code, mutated(value.data, dice) if dice.random() < 0.03 else value.data)
    return value


def distorted_nodes(body: bytes, dice: random.Random) -> bytes:
    """A PROTOBUF body in which nodes changed places, so that every field meets content of every other kind."""
    docs = content.read(body)
    for doc in docs:
        for name in list(doc.data):
            if dice.random() < 0.15:
                doc.data[name].CopyFrom(doc.data[dice.choice(list(doc.data))])
                inner = doc.data[name].ndarray.dense if doc.data[name].HasField("ndarray") else None
                if inner is not None and dice.random() < 0.5:
                    inner.buffer, inner.dtype = mutated(inner.buffer, dice), dice.choice(("<f4", "|O", "float16", "<U9", "", "x"))
    return content.write(DocListProto(docs=docs))


def broken(body: bytes, content_type: str, dice: random.Random) -> bytes:
    if dice.random() < 0.5:
        return mutated(body, dice)
    if content_type == JSON:
        tree = distorted(orjson.loads(body), dice)
        return orjson.dumps(tree, default=lambda value: str(value))
    if content_type == COLUMNS:
        return msgpack.packb(distorted(msgpack.unpackb(body, strict_map_key=False), dice))  # type: ignore[no-any-return]  # untyped library
    return distorted_nodes(body, dice)


def attempts(content_type: str) -> Iterator[tuple[bytes, Any]]:
    dice = random.Random(f"streamflow {content_type}")
    valid = bodies(content_type)
    for _ in range(MUTATIONS):
        body, doc_type = dice.choice(valid)
        yield broken(body, content_type, dice), doc_type


@pytest.mark.timeout(600)
@pytest.mark.parametrize("content_type", [JSON, PROTOBUF, COLUMNS])
def test_a_broken_body_is_read_or_refused_and_nothing_else(content_type: str) -> None:
    refused = accepted = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # docarray warns when it reshapes, numpy when it casts
        for body, doc_type in attempts(content_type):
            for trusted in (False, True) if content_type == COLUMNS else (False,):
                try:
                    decode(body, content_type, doc_type, trusted=trusted)
                    accepted += 1
                except InvalidInput:
                    refused += 1
            for accept in (JSON, PROTOBUF, COLUMNS):
                try:
                    transcode(body, content_type, accept)
                except InvalidInput:
                    refused += 1
    assert refused > MUTATIONS // 4 and accepted > MUTATIONS // 20


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for content_type in (JSON, PROTOBUF, COLUMNS):
        monkeypatch.undo()
        body = encode([Leaf(name="a")] * 5, content_type)
        monkeypatch.setattr(limits, "MAX_DOCUMENTS", 4)
        with pytest.raises(InvalidInput, match="5 documents in one request, at most 4"):
            decode(body, content_type, Leaf)
        monkeypatch.setattr(limits, "MAX_DOCUMENTS", 5)
        monkeypatch.setattr(limits, "MAX_BODY_BYTES", len(body) - 1)
        with pytest.raises(InvalidInput, match=f"body of {len(body)} bytes"):
            decode(body, content_type, Leaf)
        monkeypatch.setattr(limits, "MAX_BODY_BYTES", len(body))
        assert len(decode(body, content_type, Leaf).docs) == 5


@pytest.mark.parametrize("content_type", [JSON, PROTOBUF, COLUMNS])
def test_documents_inside_each_other_are_bounded(content_type: str) -> None:
    def chain(levels: int) -> LegacyDocument:
        doc = LegacyDocument(text="end")
        for _ in range(levels):
            doc = LegacyDocument.model_construct(**{**LegacyDocument().__dict__, "chunks": DocList[LegacyDocument]([doc])})
        return doc

    assert decode(encode([chain(20)], content_type), content_type).docs == [chain(20)]
    with pytest.raises((InvalidInput, StreamflowError)):
        decode(encode([chain(100)], content_type), content_type)


def test_importing_the_codec_loads_neither_docarray_nor_numpy() -> None:
    program = "import sys, streamflow.broker.codec; print(sorted({'docarray', 'numpy', 'torch', 'pydantic', 'orjson'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
