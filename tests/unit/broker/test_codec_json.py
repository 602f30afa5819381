"""The form of HTTP: request objects, lenient only where documented, and errors that name document and field."""

from __future__ import annotations

import base64
from typing import Any, Optional

import numpy as np
import orjson
import pytest
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from docarray.documents.legacy import LegacyDocument
from docarray.typing import AnyTensor, NdArray

from streamflow.broker.codec import decode, encode
from streamflow.broker.envelope import JSON
from streamflow.broker.errors import InvalidInput, StreamflowError

pytestmark = pytest.mark.feature("DC-05")


class Item(BaseDoc):
    name: str = ""
    price: float = 0.0
    vector: Optional[NdArray] = None  # noqa: UP045  (as users write it)
    blob: bytes = b""
    inner: DocList[TextDoc] = DocList[TextDoc]()
    any: Any = None


def parse(body: Any, doc_type: Any = Item) -> Any:
    return decode(body if isinstance(body, bytes) else orjson.dumps(body), JSON, doc_type)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"data": [{"name": "a"}, {"name": "b"}]}, ["a", "b"]),
        ({"data": {"name": "a"}}, ["a"]),
        ([{"name": "a"}], ["a"]),
        ({"data": []}, []),
        ({"data": None}, []),
        ({"parameters": {}}, []),
        ({}, []),
        ([], []),
        (b"", []),
    ],
)
def test_the_forms_of_a_request(body: Any, names: list[str]) -> None:
    assert [doc.name for doc in parse(body).docs] == names


def test_parameters_come_with_the_documents() -> None:
    assert parse({"data": [], "parameters": {"top_k": 5, "x": {"y": [1.5]}}}).parameters == {"top_k": 5, "x": {"y": [1.5]}}
    assert parse({"data": [], "parameters": None}).parameters is None
    assert parse([]).parameters is None


def test_a_class_may_read_a_bare_text_as_a_document() -> None:
    assert parse({"data": ["a", {"text": "b"}]}, TextDoc).docs.text == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "body is not readable as application/json"),
        (b"\xff", "body is not readable"),
        (b"5", "a JSON object with `data` or a list of documents"),
        (b'{"data": 5}', r"data\[0\]: Input should be a valid dictionary"),
        ({"parameters": [1]}, "parameters: Input should be a JSON object"),
        ([{}, {}, {}, {"price": "cheap"}], r"data\[3\].price: Input should be a valid number"),
        ([{"price": "cheap"}, {"price": []}, {"name": 5}], r"data\[0\].price: .* \(and 2 more\)"),
        ([{"inner": [{}, {"text": 5}]}], r"data\[0\].inner\[1\].text: Input should be a valid string"),
        ([{"inner": 5}], r"data\[0\].inner: Input should be"),
        ([{"blob": "not base64!"}], r"data\[0\].blob: Input should be base64"),
        ([{}, {"vector": [1, [2, 3]]}], r"data\[1\].vector: Input should be nested lists of numbers, equally long"),
        ([{"vector": {}}], r"data\[0\].vector: Input should be nested lists of numbers"),
        ([{"vector": [{}]}], r"data\[0\].vector: Input should be nested lists of numbers"),
        ([{"inner": [{"embedding": ["a", None]}]}], r"data\[0\].inner\[0\].embedding: "),
    ],
)
def test_an_error_names_the_document_and_the_field(body: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse(body)


def test_a_failing_tensor_class_is_named_too() -> None:
    class Shaped(BaseDoc):
        vector: NdArray[3]
        more: AnyTensor[3] | None = None

    with pytest.raises(InvalidInput, match=r"data\[1\]"), pytest.warns(UserWarning, match="Reshaping"):
        parse([{"vector": [1, 2, 3]}, {"vector": [1, 2]}], Shaped)


def test_tensors_are_read_from_lists() -> None:
    values = ([1, 2], [[1.5], [2]], [1.5, None], [], [[], []], 5, "[1, 2]", [True])
    made = [doc.vector for doc in parse([{"vector": value} for value in values]).docs]
    assert [array.shape for array in made] == [(2,), (2, 1), (2,), (0,), (2, 0), (), (2,), (1,)]
    assert [array.dtype.kind for array in made] == list("iffffiib")
    assert np.isnan(made[2][1]) and made[5] == 5
    for array in made:
        array[...] = 0  # writable


def test_bytes_are_base64_in_either_alphabet() -> None:
    raw = bytes(range(256))
    for text in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
        assert parse([{"blob": text.decode()}]).docs[0].blob == raw
    assert orjson.loads(encode([Item(blob=raw)], JSON))[0]["blob"] == base64.b64encode(raw).decode()


def test_an_answer_is_the_array_of_documents_with_plain_values() -> None:
    doc = Item(id="i", name="a", price=float("nan"), vector=np.array([1, np.nan], "f4"), inner=[TextDoc(id="t", text="x")], any={1: {2}})
    assert orjson.loads(encode([doc], JSON)) == [
        {
            "id": "i",
            "name": "a",
            "price": None,
            "vector": [1.0, None],
            "blob": "",
            "inner": [{"id": "t", "text": "x", "url": None, "embedding": None, "bytes_": None}],
            "any": {"1": [2]},
        }
    ]


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array(1.5), b"1.5"),
        (np.zeros((0, 4)), b"[]"),
        (np.array([[1, 2], [3, 4]], "i1").T, b"[[1,3],[2,4]]"),
        (np.array([1.5], ">f8"), b"[1.5]"),
        (np.array([1 + 2j]), b"[[1.0,2.0]]"),
        (np.array(["a\u00e9"]), '["a\u00e9"]'.encode()),
        (np.array(["2026-11-20"], "M8[D]"), b'["2026-11-20T00:00:00"]'),
        (np.array([1.5], "f2"), b"[1.5]"),
    ],
)
def test_arrays_are_nested_lists(array: Any, text: bytes) -> None:
    assert b'"any":' + text + b"}" in encode([Item(any=array)], JSON)


def test_integers_above_64_bits_are_written_in_full() -> None:
    assert b'"any":{"a":[1180591620717411303424]}' in encode([Item(any={"a": [2**70]})], JSON)


def test_unknown_fields_are_kept_by_row() -> None:
    made = parse([{"name": "a", "color": "red"}, {"name": "b"}, {"size": 5}])
    assert made.unknown == {"color": ["red", None, None], "size": [None, None, 5]}
    rows = orjson.loads(encode(made.docs, JSON, extra_columns=made.unknown))
    assert [(row["color"], row["size"]) for row in rows] == [("red", None), (None, None), (None, 5)]
    assert parse([{"name": "a"}]).unknown is None


@pytest.mark.parametrize("where", ["any", "other", "parameters", "inner"])
def test_nesting_is_bounded(where: str) -> None:
    def nested(levels: int) -> bytes:
        deep = b"[" * levels + b"]" * levels
        if where == "inner":
            deep = b'[{"chunks":' * (levels // 2) + b"[]" + b"}]" * (levels // 2)
            return b'{"data":[{"chunks":' + deep + b"}]}"
        if where == "parameters":
            return b'{"parameters": {"a":' + deep + b"}}"
        return b'{"data":[{"' + where.encode() + b'":' + deep + b"}]}"

    doc_type = LegacyDocument if where == "inner" else Item
    parse(nested(60), doc_type)
    for levels in (70, 300, 900):
        with pytest.raises(InvalidInput, match="more than 64 levels"):
            parse(nested(levels), doc_type)
    with pytest.raises(InvalidInput):
        parse(nested(100_000), doc_type)


def test_a_value_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(StreamflowError, match="document 1, field any: cannot be sent as application/json"):
        encode([Item(), Item(any={"a": object()})], JSON)
    doc = Item()
    doc.any = [doc]
    with pytest.raises(StreamflowError, match="document 0, field any"):
        encode([doc], JSON)
