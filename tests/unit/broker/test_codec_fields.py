"""Every kind of field through every wire form: what goes in comes out, with its type."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from functools import cached_property
from typing import Any, Literal, Optional
from uuid import UUID

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.documents import ImageDoc, TextDoc
from docarray.documents.legacy import LegacyDocument
from docarray.typing import ID, AnyEmbedding, AnyTensor, ImageUrl, NdArray
from pydantic import BaseModel, Field, create_model

from streamflow.broker.codec import decode, encode
from streamflow.broker.envelope import COLUMNS, EMPTY, JSON, PROTOBUF

pytestmark = pytest.mark.feature("DC-01")

FORMS = {"columns": COLUMNS, "trusted": COLUMNS, "json": JSON, "protobuf": PROTOBUF}


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Point(BaseModel):
    x: int
    label: str = "p"


class Leaf(BaseDoc):
    name: str
    vector: Optional[NdArray] = None  # noqa: UP045  (as users write it)


def round_trip(form: str, doc_type: Any, *values: dict[str, Any]) -> Any:
    docs = DocList[doc_type]([doc_type(**value) for value in values])
    made = decode(encode(docs, FORMS[form]), FORMS[form], doc_type, trusted=form == "trusted").docs
    assert type(made) is type(docs)
    assert [doc.id for doc in made] == [doc.id for doc in docs]
    return made


def field(form: str, annotation: Any, value: Any, copies: int = 2) -> Any:
    """`value` after the trip, as the field `x` of a document; the same from one document and from several."""
    doc_type = create_model("Made", __base__=BaseDoc, x=(annotation, ...))
    one = round_trip(form, doc_type, {"x": value})
    many = round_trip(form, doc_type, *[{"x": value}] * copies)
    assert type(one[0].x) is type(many[0].x)
    return many[0].x


NOW = datetime(2026, 11, 20, 9, 13, 5, 123456, tzinfo=UTC)

PLAIN = [
    (str, "text with \0 and \U0001f600"),
    (int, 5),
    (int, 2**31),
    (int, -(2**31) - 1),
    (int, 2**53 + 1),
    (int, 2**63 - 1),
    (int, -(2**63)),
    (int, 2**64 - 1),
    (float, 0.1),
    (float, 5.0),
    (bool, True),
    (bytes, b"\x00\xff\xfe not UTF-8"),
    (datetime, NOW),
    (datetime, NOW.replace(tzinfo=None)),
    (date, NOW.date()),
    (time, time(9, 13, 5, 17)),
    (timedelta, timedelta(days=3, microseconds=5)),
    (UUID, UUID(int=2**127 + 5)),
    (Decimal, Decimal("12345678901234567890.123456789")),
    (Color, Color.BLUE),
    (Level, Level.LOW),
    (Literal["a", 5], 5),
    (int | None, None),
    (datetime | None, NOW),
    (int | str, "5"),
    (list[int], [1, 2**40, -3]),
    (list[float], [0.5, 1.0]),
    (list[bytes], [b"\xff", b""]),
    (list[datetime], [NOW]),
    (list[Color], [Color.RED]),
    (set[int], {1, 2, 3}),
    (frozenset[str], frozenset({"a", "b"})),
    (tuple[int, str], (1, "a")),
    (tuple[float, ...], (1.0, 2.5)),
    (dict[str, int], {"a": 1, "b": 2**40}),
    (dict[int, str], {1: "a", 2**40: "b"}),
    (dict[str, list[bytes]], {"a": [b"\xff"]}),
    (dict[str, Any], {"text": "x", "none": None, "list": [1, [2.5, {"deep": True}]]}),
    (Any, {"a": ["b", 1.5, None]}),
    (Point, Point(x=3)),
    (list[Point], [Point(x=3), Point(x=4, label="q")]),
    (Point | None, None),
    (ImageUrl, ImageUrl("http://example.org/a.png")),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("annotation", "value"), PLAIN, ids=[f"{annotation}-{value}"[:60] for annotation, value in PLAIN])
def test_a_value_comes_back_equal_and_of_the_same_type(form: str, annotation: Any, value: Any) -> None:
    made = field(form, annotation, value)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize("form", ["columns", "trusted"])
@pytest.mark.parametrize("value", [NOW, NOW.date(), UUID(int=7), Decimal("1.10"), 2**70, -(2**70), 1 + 2j, timedelta(1), b"\xff"])
def test_columns_keep_the_type_of_values_that_no_annotation_names(form: str, value: Any) -> None:
    made = field(form, dict[str, Any], {"x": [value]})["x"][0]
    assert (made, type(made)) == (value, type(value))


@pytest.mark.parametrize("form", ["columns", "trusted", "protobuf"])
def test_not_a_number_and_infinity_survive(form: str) -> None:
    assert np.isnan(field(form, float, float("nan")))
    assert field(form, float, float("-inf")) == float("-inf")
    np.testing.assert_array_equal(field(form, NdArray, np.array([np.nan, np.inf, 1.0])), [np.nan, np.inf, 1.0])


ARRAYS = {
    "float32": np.arange(6, dtype="<f4").reshape(2, 3),
    "float16": np.array([1.5, 2], "<f2"),
    "int8": np.array([-1, 2], "i1"),
    "uint64": np.array([2**64 - 1], "u8"),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j], "c16"),
    "text": np.array(["abc", "\u00e9"], "<U3"),
    "bytes": np.array([b"ab", b"c"], "S2"),
    "big-endian": np.array([1.5, 2.5], ">f8"),
    "big-endian text": np.array(["abc"], ">U3"),
    "dates": np.array(["2026-11-20", "NaT"], "M8[D]"),
    "0-d": np.array(5.5),
    "empty": np.zeros((0, 4), "f4"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(20.0)[::3],
    "reversed": np.arange(5)[::-1],
    "32 dimensions": np.ones((1,) * 32, "u1"),
}


@pytest.mark.feature("DC-04")
@pytest.mark.parametrize("form", ["columns", "trusted", "protobuf"])
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_keeps_shape_dtype_and_values_and_is_writable(form: str, name: str) -> None:
    array = ARRAYS[name]
    made = field(form, NdArray, array)
    assert isinstance(made, NdArray)
    assert (made.shape, made.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(np.asarray(made), array)
    made[...] = made  # raises when read-only


@pytest.mark.parametrize("form", ["columns", "trusted"])
def test_columns_keep_fortran_order(form: str) -> None:
    made = field(form, NdArray, ARRAYS["fortran"])
    assert made.flags.f_contiguous and not made.flags.c_contiguous


@pytest.mark.feature("DC-04")
@pytest.mark.parametrize("annotation", [NdArray, AnyTensor, AnyEmbedding, NdArray[3], NdArray["x"], AnyTensor[3], AnyEmbedding[3]])
@pytest.mark.parametrize("form", FORMS)
def test_a_tensor_gets_the_class_that_validation_gives_it(form: str, annotation: Any) -> None:
    value = np.array([0.5, 1.5, 2.5])
    doc_type = create_model("Made", __base__=BaseDoc, x=(annotation, ...))
    for copies in (1, 3):
        for made in round_trip(form, doc_type, *[{"x": value}] * copies):
            assert type(made.x) is type(doc_type(x=value).x)
            np.testing.assert_array_equal(np.asarray(made.x), value)


@pytest.mark.parametrize("form", FORMS)
def test_tensors_of_different_shapes_and_missing_ones_keep_their_places(form: str) -> None:
    doc_type = create_model("Made", __base__=BaseDoc, x=(NdArray | None, None))
    values = [None, np.array([1.5]), np.array([[1.5, 2.5]]), None]
    made = round_trip(form, doc_type, *[{"x": value} for value in values])
    assert [None if doc.x is None else doc.x.shape for doc in made] == [None, (1,), (1, 2), None]


@pytest.mark.parametrize("form", FORMS)
def test_tensors_inside_containers(form: str) -> None:
    made = field(form, dict[str, list[NdArray]], {"a": [np.array([1.5]), np.array([2.5, 3.5])]})
    assert [array.tolist() for array in made["a"]] == [[1.5], [2.5, 3.5]]
    assert all(isinstance(array, NdArray) for array in made["a"])


class Tree(BaseDoc):
    leaf: Leaf
    maybe: Optional[Leaf] = None  # noqa: UP045
    leaves: DocList[Leaf] = DocList[Leaf]()
    some: Optional[DocList[Leaf]] = None  # noqa: UP045
    listed: list[Leaf] = []
    named: dict[str, Leaf] = {}


def leaf(name: str, *vector: float) -> Leaf:
    return Leaf(name=name, vector=np.array(vector) if vector else None)


@pytest.mark.parametrize("form", FORMS)
def test_nested_documents_come_back_in_their_classes(form: str) -> None:
    full = {
        "leaf": leaf("a", 1.5),
        "maybe": leaf("b"),
        "leaves": [leaf("c", 1.5, 2.5), leaf("d", 3.5, 4.5)],
        "some": [leaf("e")],
        "listed": [leaf("f")],
        "named": {"g": leaf("g", 0.5)},
    }
    for values in ([full], [{"leaf": leaf("z")}], [full, {"leaf": leaf("z")}, full]):
        expected = DocList[Tree]([Tree(**value) for value in values])
        made = round_trip(form, Tree, *values)
        assert made == expected
        assert [doc.leaf.id for doc in made] == [doc.leaf.id for doc in expected]
        for doc in made:
            assert type(doc.leaf) is Leaf and type(doc.leaves) is type(expected[0].leaves)
            assert [type(inner) for inner in (*doc.leaves, *doc.listed, *doc.named.values())] == [Leaf] * (
                len(doc.leaves) + len(doc.listed) + len(doc.named)
            )


@pytest.mark.parametrize("form", FORMS)
def test_a_union_of_documents_picks_the_class_that_fits(form: str) -> None:
    made = field(form, Leaf | Point, leaf("a"))
    assert type(made) is Leaf and made.name == "a"
    assert type(field(form, Leaf | Point, Point(x=1))) is Point


@pytest.mark.feature("DC-03")
@pytest.mark.parametrize("form", FORMS)
def test_the_legacy_document_is_the_default_and_round_trips(form: str) -> None:
    chunk = LegacyDocument(text="chunk", embedding=np.array([0.5, 1.5]), chunks=[LegacyDocument(text="inner")])
    doc = LegacyDocument(
        text="t",
        blob=b"\xff",
        url="http://example.org",
        tensor=np.ones((2, 2)) / 2,
        embedding=np.array([0.5]),
        tags={"price": 5, "nested": {"a": [1.5, "b", None, True]}},
        scores={"cos": 0.5},
        chunks=[chunk, chunk],
        matches=[LegacyDocument(text="match")],
    )
    for docs in (DocList[LegacyDocument]([doc]), DocList[LegacyDocument]([doc, LegacyDocument(), doc])):
        made = decode(encode(docs, FORMS[form]), FORMS[form], trusted=form == "trusted").docs
        assert made == docs
        assert made[0].chunks[0].chunks[0].text == "inner" and made[0].chunks[0].id == chunk.id
        assert type(made[0].tags["price"]) is int


@pytest.mark.feature("DC-03")
@pytest.mark.parametrize("form", FORMS)
def test_ready_made_documents(form: str) -> None:
    full = TextDoc(text="a", url="http://example.org/a.txt", embedding=np.array([0.5]), bytes_=b"\xff")
    docs = DocList[TextDoc]([full, TextDoc(text="b")])
    made = decode(encode(docs, FORMS[form]), FORMS[form], TextDoc, trusted=form == "trusted").docs
    assert made == docs and type(made[0].url) is type(docs[0].url) and type(made[0].id) is ID
    images = DocList[ImageDoc]([ImageDoc(url="http://example.org/a.png", tensor=np.full((2, 2, 3), 0.5), bytes_=b"\xff")])
    again = decode(encode(images, FORMS[form]), FORMS[form], ImageDoc, trusted=form == "trusted").docs
    assert again == images
    assert (type(again[0].tensor), type(again[0].bytes_)) == (type(images[0].tensor), type(images[0].bytes_))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ids", [[None, None], ["a", "a"], ["a", None]])
def test_ids_may_be_missing_or_shared(form: str, ids: list[str | None]) -> None:
    docs = DocList[Leaf]([Leaf(id=value, name="x") for value in ids])
    assert [doc.id for doc in decode(encode(docs, FORMS[form]), FORMS[form], Leaf, trusted=form == "trusted").docs] == ids


@pytest.mark.parametrize("content_type", [COLUMNS, JSON, PROTOBUF, EMPTY])
def test_no_documents_are_an_empty_list_of_the_class(content_type: str) -> None:
    made = decode(encode(DocList[Leaf](), content_type), content_type, Leaf)
    assert made == (DocList[Leaf](), None, None)
    made.docs.append(Leaf(name="a"))


class Aliased(BaseDoc):
    price: float = Field(alias="Price")
    stamps: DocList[Leaf] = Field(default=DocList[Leaf](), validation_alias="Stamps")


@pytest.mark.parametrize("form", FORMS)
def test_fields_with_an_alias(form: str) -> None:
    made = round_trip(form, Aliased, {"Price": 2.5, "Stamps": [leaf("a", 0.5)]}, {"Price": 3.5})
    assert [doc.price for doc in made] == [2.5, 3.5] and made[0].stamps[0].name == "a"


class Open(BaseDoc):
    model_config = {"extra": "allow"}
    name: str


@pytest.mark.parametrize("form", FORMS)
def test_a_class_that_allows_extra_fields_keeps_them(form: str) -> None:
    made = round_trip(form, Open, {"name": "a", "more": [1, 2]}, {"name": "b"})
    assert [doc.__pydantic_extra__ for doc in made] == [{"more": [1, 2]}, {}]


def test_cached_properties_are_no_fields() -> None:
    class Shout(BaseDoc):
        name: str

        @cached_property
        def loud(self) -> str:
            return self.name.upper()

    doc = Shout(name="a")
    assert doc.loud == "A"
    for content_type in (COLUMNS, JSON, PROTOBUF):
        made = decode(encode([doc], content_type), content_type, Shout)
        assert made.unknown is None and "loud" not in made.docs[0].__dict__
