"""Documents of several requests in one list and back, and whose parameters are the same to user code."""

from __future__ import annotations

from typing import Any

import pytest
from docarray.documents import TextDoc
from hypothesis import given
from hypothesis import strategies as st

from streamflow.workers.merging import merge, parameters_key, split
from tests.unit.workers.bench import docs_of

pytestmark = pytest.mark.feature("DB-08")


@given(st.lists(st.lists(st.text(max_size=3), max_size=5), min_size=1, max_size=8))
def test_split_undoes_merge(texts: list[list[str]]) -> None:
    lists = [docs_of(one) for one in texts]
    merged = merge(lists)
    assert merged.doc_type is TextDoc and [doc.text for doc in merged] == [text for one in texts for text in one]
    again = split(merged, [len(one) for one in lists])
    assert [list(map(id, one)) for one in again] == [list(map(id, one)) for one in lists]
    assert all(one.doc_type is TextDoc for one in again)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), st.dictionaries(st.text(max_size=3), VALUES, max_size=3))
def test_parameters_have_equal_keys_just_when_user_code_cannot_tell_them_apart(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (parameters_key(one) == parameters_key(other)) == same(one, other)
    assert parameters_key(one) == parameters_key(dict(reversed(one.items())))
    assert isinstance(hash(parameters_key(one)), int)


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), (None, "None"), ([], {}), ("1", 1), (b"a", "a"), ([1, 2], [2, 1])])
def test_values_that_look_alike_do_not_share_a_call(one: Any, other: Any) -> None:
    assert parameters_key({"x": one}) != parameters_key({"x": other})
