"""Any values that the fields allow come back equal: from one document or many, on trust or validated."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Optional

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow.broker.codec import decode, encode, transcode
from streamflow.broker.envelope import COLUMNS, JSON, PROTOBUF

pytestmark = pytest.mark.feature("DC-02")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
loose: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | finite | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
arrays = st.lists(finite, max_size=4).map(lambda values: np.array(values, "f8"))


class Leaf(BaseDoc):
    name: str
    vector: Optional[NdArray] = None  # noqa: UP045  (as users write it)


class Item(BaseDoc):
    number: int
    ratio: Optional[float]  # noqa: UP045
    blob: bytes
    at: datetime
    exact: Decimal
    any: Any
    vector: Optional[NdArray]  # noqa: UP045
    leaves: Optional[DocList[Leaf]]  # noqa: UP045


leaves = st.builds(Leaf, name=text, vector=st.none() | arrays)
items = st.builds(
    Item,
    id=text,
    number=st.integers(-(2**63), 2**64 - 1),
    ratio=st.none() | finite,
    blob=st.binary(max_size=20),
    at=st.datetimes(),
    exact=st.decimals(allow_nan=False, allow_infinity=False),
    any=loose,
    vector=st.none() | arrays,
    leaves=st.none() | st.lists(leaves, max_size=3),
)


@pytest.mark.parametrize("form", [COLUMNS, JSON, PROTOBUF])
@given(docs=st.lists(items, max_size=4))
@settings(max_examples=60, deadline=None)
def test_documents_come_back_equal(form: str, docs: list[Item]) -> None:
    body = encode(docs, form)
    made = decode(body, form, Item)
    assert made.docs == DocList[Item](docs) and made.unknown is None
    assert [doc.id for doc in made.docs] == [doc.id for doc in docs]
    assert [doc.leaves and [leaf.id for leaf in doc.leaves] for doc in made.docs] == [
        doc.leaves and [leaf.id for leaf in doc.leaves] for doc in docs
    ]
    assert decode(body, form, Item, trusted=True).docs == made.docs
    for other in (COLUMNS, JSON, PROTOBUF):
        assert decode(transcode(body, form, other), other, Item).docs == made.docs
