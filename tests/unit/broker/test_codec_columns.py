"""The form between workers: what trust skips, what it never skips, and that documents made without validation behave as any other."""

from __future__ import annotations

import copy
import pickle
from typing import Any, Optional

import msgpack
import numpy as np
import pytest
from docarray import BaseDoc, DocList, DocVec
from docarray.typing import ID, NdArray
from pydantic import Field, PrivateAttr, ValidationError, create_model, field_validator

from streamflow.broker.codec import decode, encode, transcode
from streamflow.broker.codec.plans import plan_of
from streamflow.broker.envelope import COLUMNS, JSON
from streamflow.broker.errors import InvalidInput, StreamflowError

pytestmark = pytest.mark.feature("DC-02")


class Item(BaseDoc):
    price: float = 1.5
    vector: Optional[NdArray] = None  # noqa: UP045  (as users write it)
    tags: dict[str, Any] = {}


class Priced(BaseDoc):
    price: float


def items(count: int) -> Any:
    return DocList[Item]([Item(price=index, vector=np.full(3, index, "f4"), tags={"n": index}) for index in range(count)])


def trusted(docs: Any, doc_type: Any = Item) -> Any:
    return decode(encode(docs, COLUMNS), COLUMNS, doc_type, trusted=True)


@pytest.mark.parametrize("count", [1, 3])
def test_documents_taken_on_trust_behave_as_any_other(count: int) -> None:
    docs = items(count)
    made = trusted(docs).docs
    assert made == docs and isinstance(made, type(docs)) and len(made) == count
    doc = made[0]
    assert isinstance(doc.id, ID) and isinstance(doc.vector, NdArray)
    assert doc.model_fields_set == {"id", "price", "vector", "tags"}
    assert copy.copy(doc) == copy.deepcopy(doc) == doc.model_copy() == pickle.loads(pickle.dumps(doc)) == doc
    assert Item(**{**doc.__dict__}) == doc and doc.model_dump()["price"] == doc.price
    doc.price = "2.5"
    assert doc.price == 2.5
    with pytest.raises(ValidationError):
        doc.price = "cheap"
    made.price = [9.0] * count
    made.append(Item())
    assert made.price == [9.0] * count + [1.5]
    assert DocList[Item].from_protobuf(made.to_protobuf()) == made


def test_arrays_of_one_stack_are_writable_and_apart() -> None:
    made = trusted(items(3)).docs
    made[0].vector[:] = 7
    assert made[1].vector.tolist() == [1, 1, 1]
    assert not any(np.shares_memory(made[0].vector, other.vector) for other in made[1:])


def test_equal_shapes_travel_as_one_extension() -> None:
    body = encode(items(50), COLUMNS)
    assert len(body) - 50 * (12 + 8 + 32 + 2 + 5) < 200
    assert isinstance(msgpack.unpackb(body, strict_map_key=False)[3]["vector"], msgpack.ExtType)


def test_post_init_of_the_class_runs() -> None:
    seen = []

    class Noting(BaseDoc):
        name: str
        _calls: int = PrivateAttr(default=5)

        def model_post_init(self, context: Any) -> None:
            super().model_post_init(context)
            seen.append(self.name)

    made = trusted([Noting(name="a")], Noting).docs[0]
    assert seen == ["a", "a"] and made.__pydantic_private__ == {"_calls": 5}


def test_trust_skips_validation_only_for_an_equal_class() -> None:
    seen = []

    class Strict(BaseDoc):
        price: float

        @field_validator("price")
        @classmethod
        def positive(cls, value: float) -> float:
            seen.append(value)
            if value < 0:
                raise ValueError("must be positive")
            return value

    assert trusted([Strict(price=1)], Strict).docs[0].price == 1
    assert seen == [1]  # by the constructor alone
    with pytest.raises(InvalidInput, match=r"data\[0\].price: Value error, must be positive"):
        trusted([Priced(price=-1)], Strict)
    with pytest.raises(InvalidInput, match=r"data\[1\].price: "):
        wrong = Priced.model_construct(id="a", price="cheap")
        decode(encode([Priced(price=1), wrong], COLUMNS), COLUMNS, Priced)


def test_the_fingerprint_covers_what_decides_which_values_fit() -> None:
    def made(**fields: Any) -> bytes:
        return plan_of(create_model("Made", __base__=BaseDoc, **fields)).fingerprint

    base = made(x=(int, ...))
    assert base == made(x=(int, 5))
    different = [
        made(x=(float, ...)),
        made(y=(int, ...)),
        made(x=(int, Field(gt=0))),
        made(x=(NdArray[3], ...)),
        made(x=(NdArray[4], ...)),
        made(x=(DocList[Item], ...)),
        made(x=(DocList[Priced], ...)),
        made(x=(list[int], ...)),
        made(x=(set[int], ...)),
    ]
    assert len({base, *different}) == len(different) + 1


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("trust", [False, True])
def test_what_the_class_has_no_field_for_is_kept_apart_and_put_back(count: int, trust: bool) -> None:
    docs = items(count)
    made = decode(encode(docs, COLUMNS), COLUMNS, Priced, trusted=trust)
    assert set(made.unknown) == {"vector", "tags"} and made.docs.price == docs.price
    made.docs.price = [5.0] * count
    again = decode(encode(made.docs, COLUMNS, extra_columns=made.unknown), COLUMNS, Item, trusted=trust).docs
    docs.price = [5.0] * count
    assert again == docs and [doc.id for doc in again] == [doc.id for doc in docs]
    once_more = decode(encode(made.docs, COLUMNS, extra_columns=made.unknown), COLUMNS, Priced, trusted=trust)
    assert once_more.docs == made.docs and set(once_more.unknown) == {"vector", "tags"}


def test_unknown_columns_are_left_out_when_the_number_of_documents_changed() -> None:
    made = decode(encode(items(3), COLUMNS), COLUMNS, Priced)
    made.docs.pop()
    assert decode(encode(made.docs, COLUMNS, extra_columns=made.unknown), COLUMNS, Priced).unknown is None


@pytest.mark.parametrize("trust", [False, True])
def test_a_subclass_travels_in_a_list_of_its_base(trust: bool) -> None:
    class Wide(Priced):
        width: int

    class Shelf(BaseDoc):
        top: Priced
        rest: DocList[Priced]

    mixed = [Wide(price=1, width=2), Priced(price=3)]
    made = decode(encode(mixed, COLUMNS), COLUMNS, Priced, trusted=trust)
    assert made.docs.price == [1, 3] and made.unknown == {"width": [2, None]}
    shelf = Shelf(top=mixed[0], rest=DocList[Priced](mixed))
    again = decode(encode([shelf, shelf], COLUMNS), COLUMNS, Shelf, trusted=trust).docs[1]
    assert (again.top.price, again.rest.price) == (1, [1, 3]) and type(again.top) is Priced


def test_extra_fields_of_an_open_class_are_no_unknown_columns() -> None:
    class Open(BaseDoc):
        model_config = {"extra": "allow"}

    docs = [Open(more=1), Open(more=2)]
    made = trusted(docs, Open)
    assert made.unknown is None and [doc.__pydantic_extra__ for doc in made.docs] == [{"more": 1}, {"more": 2}]


def test_partly_constructed_documents_get_their_defaults() -> None:
    bare = [Item.model_construct(id="a"), Item.model_construct(id="b", price=2.0)]
    for doc, names in zip(bare, ({"id"}, {"id", "price"}), strict=True):
        for name in set(doc.__dict__) - names:
            del doc.__dict__[name]
    made = trusted(bare).docs
    assert made.price == [1.5, 2.0] and made[0].tags == {}


@pytest.mark.parametrize("doc_count", [1, 3])
def test_a_docvec_is_read_row_by_row(doc_count: int) -> None:
    docs = items(doc_count)
    assert trusted(DocVec[Item](docs)).docs == docs


def test_body_may_be_a_view_of_a_larger_message() -> None:
    body = encode(items(2), COLUMNS)
    assert decode(memoryview(b"head" + body)[4:], COLUMNS, Item).docs == items(2)


def test_a_value_that_cannot_be_sent_is_named() -> None:
    docs = items(3)
    docs[1].tags = {"handle": object()}
    with pytest.raises(StreamflowError, match="document 1, field tags: cannot be sent as"):
        encode(docs, COLUMNS)
    docs[1].tags = {"handle": np.array([object()])}
    with pytest.raises(StreamflowError, match="document 1, field tags: .*dtype object"):
        encode(docs, COLUMNS)
    docs[1].tags["self"] = docs[1]
    with pytest.raises(StreamflowError, match="document 1, field tags"):
        encode(docs, COLUMNS)


def block(*parts: Any) -> bytes:
    return msgpack.packb([1, b"", *parts])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not readable"),
        (msgpack.packb([2, b"", 0, [], {}]), "version"),
        (block(2, {"id": ["a"]}, {}), "column id"),
        (block(-1, {"id": ["a"]}, {}), "column id"),
        (block(1_000_000, {"id": None}, {}), "no column holds as many"),
        (block(1_000_001, {"id": None}, {}), "at most 1000000"),
        (block(2, [{}], {}), "1 rows found"),
        (block(1, [5], {}), "rows found"),
        (block(2, {"id": ["a", "b"], "top": [[1, 1], 1, {"id": "x"}, {}]}, {"top": 0}), "do not add up"),
        (block(1, {"id": "a", "tags": {"x": msgpack.ExtType(99, b"")}}, {}), "extension type 99"),
        (block(1, {"id": "a", "price": msgpack.ExtType(11, b"x" * 600)}, {}), "integer of 600 bytes"),
        (block(1, {"id": "a", "tags": {"x": msgpack.ExtType(2, b"\x03<f4\x00\x01" + b"\1" + b"\0" * 7 + b"\0" * 4)}}, {}), "whole column"),
    ],
)
def test_bodies_that_contradict_themselves_are_refused(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        decode(body, COLUMNS, Item)


@pytest.mark.parametrize("key", [msgpack.ExtType(9, b"\0" * 16), msgpack.ExtType(11, b"\1" * 20), msgpack.ExtType(10, b"5")])
def test_map_keys_that_could_be_made_to_collide_are_refused_from_clients(key: Any) -> None:
    with pytest.raises(InvalidInput, match="map key"):
        decode(block(1, {"id": "a", "tags": {key: 1}}, {}), COLUMNS, Item)


def test_other_map_keys_are_kept_from_clients() -> None:
    tags = {"x": 1, b"y": 2, 3: 4, 0.5: 6}
    assert transcode(block(1, {"id": "a", "tags": tags}, {}), COLUMNS, JSON) == b'[{"id":"a","tags":{"x":1,"eQ==":2,"3":4,"0.5":6}}]'


def tensor(dtype: bytes, dims: list[int], data: bytes, order: int = 0) -> msgpack.ExtType:
    shape = b"".join(size.to_bytes(8, "little") for size in dims)
    return msgpack.ExtType(1, bytes([len(dtype)]) + dtype + bytes([order, len(dims)]) + shape + data)


@pytest.mark.parametrize(
    "ext",
    [
        tensor(b"|O", [1], b"\0" * 8),
        tensor(b"|V8", [1], b"\0" * 8),
        tensor(b"<U0", [2**40], b""),
        tensor(b"<f4", [2], b"\0" * 4),
        tensor(b"<f4", [2**63, 2], b""),
        tensor(b"<f4", [0, 2**63], b""),
        tensor(b"<f4", [1] * 33, b"\0" * 4),
        tensor(b"<U1", [1], b"\xff" * 4),
        tensor(b"bfloat17", [1], b"\0" * 2),
        tensor(b"<f4", [1], b"\0" * 4, order=2),
        tensor(b"<f4,<i4", [1], b"\0" * 8),
        msgpack.ExtType(1, b""),
    ],
)
def test_tensor_headers_that_do_not_fit_their_data_are_refused(ext: msgpack.ExtType) -> None:
    with pytest.raises(InvalidInput):
        decode(block(1, {"id": "a", "vector": ext}, {}), COLUMNS, Item)


def test_booleans_above_one_become_true() -> None:
    made = decode(block(1, {"id": "a", "vector": tensor(b"|b1", [2], b"\x07\x00")}, {}), COLUMNS, Item).docs[0].vector
    assert made.tolist() == [True, False] and made.view(np.uint8).tolist() == [1, 0]
