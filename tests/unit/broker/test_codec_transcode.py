"""Pass-through without classes: from any form to any other, nothing lost that the target form can hold."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from typing import Any, Optional

import numpy as np
import orjson
import pytest
from docarray import BaseDoc, DocList
from docarray.documents.legacy import LegacyDocument
from docarray.typing import NdArray

from streamflow.broker.codec import decode, encode, transcode
from streamflow.broker.envelope import COLUMNS, EMPTY, JSON, PROTOBUF
from streamflow.broker.errors import InvalidInput

pytestmark = pytest.mark.feature("DC-05")

FORMS = [COLUMNS, JSON, PROTOBUF]


class Leaf(BaseDoc):
    name: str
    vector: Optional[NdArray] = None  # noqa: UP045  (as users write it)


class Item(BaseDoc):
    number: int
    at: datetime
    blob: bytes
    vector: NdArray
    leaf: Leaf
    leaves: DocList[Leaf]
    tags: dict[str, Any]
    marked: set[str]


def item(number: int) -> Item:
    return Item(
        number=number,
        at=datetime(2026, 11, 20, tzinfo=UTC),
        blob=b"\xff\x00",
        vector=np.full((2, 2), 0.5),
        leaf=Leaf(name="a", vector=np.array([1.5])),
        leaves=[Leaf(name="b"), Leaf(name="c", vector=np.array([2.5]))],
        tags={"a": [1, {"b": None}]},
        marked={"x"},
    )


@pytest.mark.parametrize(("source", "target"), list(product(FORMS, FORMS)))
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_class_reads_after_any_change_of_form_what_it_wrote(source: str, target: str, count: int) -> None:
    docs = DocList[Item]([item(2**40 + index) for index in range(count)])
    body = transcode(encode(docs, source), source, target)
    made = decode(body, target, Item)
    assert made.docs == docs and made.unknown is None
    assert [doc.leaves[1].id for doc in made.docs] == [doc.leaves[1].id for doc in docs]


@pytest.mark.parametrize("path", list(product(FORMS, FORMS, FORMS)))
def test_the_legacy_document_survives_two_changes(path: tuple[str, str, str]) -> None:
    docs = DocList[LegacyDocument]([LegacyDocument(text="a", tags={"x": 1}, chunks=[LegacyDocument(embedding=np.array([0.5]))])])
    body = encode(docs, path[0])
    for source, target in zip(path, path[1:], strict=False):
        body = transcode(body, source, target)
    assert decode(body, path[-1]).docs == docs


@pytest.mark.parametrize("dtype", ["f4", ">f8", "u1", "<U3"])
def test_tensors_keep_their_dtype_where_the_form_has_dtypes(dtype: str) -> None:
    docs = [Leaf(name="a", vector=np.ones(3).astype(dtype))]
    for source, target in product((COLUMNS, PROTOBUF), (COLUMNS, PROTOBUF)):
        assert decode(transcode(encode(docs, source), source, target), target, Leaf).docs[0].vector.dtype == np.dtype(dtype)


def test_a_json_request_becomes_a_json_answer() -> None:
    request = orjson.dumps({"data": [{"x": 1, "y": {"z": [None, 2.5]}}, {"w": 2}], "parameters": {"a": 1}})
    assert orjson.loads(transcode(request, JSON, JSON)) == [{"x": 1, "y": {"z": [None, 2.5]}}, {"w": 2}]
    assert transcode(b'{"data": {"x": 1}}', JSON, JSON) == b'[{"x":1}]'
    assert transcode(b"{}", JSON, JSON) == b"[]"


@pytest.mark.parametrize("accept", [*FORMS, EMPTY])
def test_no_documents(accept: str) -> None:
    body = transcode(b"", EMPTY, accept)
    assert body == {JSON: b"[]", EMPTY: b""}.get(accept, body)
    assert len(decode(body, accept, Leaf).docs) == 0


@pytest.mark.parametrize("accept", FORMS)
@pytest.mark.parametrize("body", [b'{"data": [5]}', b"[[]]", b'["a"]', b'[{"a":' + b"[" * 600 + b"]" * 600 + b"}]"])
def test_what_is_no_document_is_refused(accept: str, body: bytes) -> None:
    with pytest.raises(InvalidInput):
        transcode(body, JSON, accept)


def test_unknown_content_types_are_refused() -> None:
    with pytest.raises(InvalidInput, match="content type 'text/html' is not known"):
        transcode(b"", "text/html", "text/html")
    with pytest.raises(InvalidInput, match="content type"):
        decode(b"", "text/html")
    with pytest.raises(InvalidInput, match="content type"):
        encode([], "text/html")
