"""`when` filters: the same documents pass as with docarray's own filter, and mistakes are told when the flow is loaded."""

from __future__ import annotations

from typing import Any

import pytest
from docarray import BaseDoc, DocList
from docarray.utils.filter import filter_docs
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow.broker.conditions import compile_condition
from streamflow.broker.errors import FlowError

pytestmark = pytest.mark.feature("DC-11", "FL-30")


class Inner(BaseDoc):
    size: int = 0
    names: list[str] = []


class Item(BaseDoc):
    text: str | None = None
    price: float = 0.0
    tags: dict[str, Any] = {}
    inner: Inner = Inner()


VALUES = st.one_of(st.integers(-3, 3), st.sampled_from(["", "a", "ab", "b"]), st.booleans(), st.none())
ITEMS = st.builds(
    Item,
    text=st.sampled_from([None, "", "a", "ab", "tiger"]),
    price=st.sampled_from([0.0, 1.5, 2.0]),
    tags=st.dictionaries(st.sampled_from(["n", "list"]), st.integers(-2, 2)),
    inner=st.builds(Inner, size=st.integers(-2, 2), names=st.lists(st.sampled_from(["x", "y"]), max_size=2)),
)
NUMBERS = st.sampled_from(["price", "tags__n", "inner__size", "missing", "tags__missing", "inner__missing"])
TEXTS = st.sampled_from(["text", "missing"])
LISTS = st.sampled_from(["inner__names", "text", "missing"])


def comparison(path: st.SearchStrategy[str], signs: list[str], value: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda key, sign, operand: {key: {sign: operand}}, path, st.sampled_from(signs), value)


LEAVES = st.one_of(
    comparison(NUMBERS, ["$eq", "$neq", "$gt", "$gte", "$lt", "$lte"], st.integers(-2, 2)),
    comparison(TEXTS, ["$eq", "$neq", "$gt", "$lt"], st.sampled_from(["", "a", "b"])),
    comparison(TEXTS, ["$regex"], st.sampled_from(["a", "^t.g", "^$"])),
    comparison(NUMBERS, ["$in", "$nin"], st.lists(st.integers(-2, 2), max_size=3)),
    comparison(LISTS, ["$size"], st.integers(0, 2)),
    comparison(st.one_of(NUMBERS, TEXTS), ["$exists"], st.booleans()),
    st.builds(lambda low, high: {"tags__n": {"$gte": low, "$lt": high}}, st.integers(-2, 2), st.integers(-2, 2)),
    st.just({"inner__size": {"$gt": "{price}"}}),
)


def combined(children: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    listed = st.lists(children, min_size=1, max_size=3)
    return st.one_of(
        st.builds(lambda queries: {"$and": queries}, listed),
        st.builds(lambda queries: {"$or": queries}, listed),
        st.builds(lambda query: {"$not": query}, children),
    )


@settings(max_examples=400, deadline=None)
@given(items=st.lists(ITEMS, max_size=4), query=st.recursive(LEAVES, combined, max_leaves=6))
def test_the_same_documents_pass_as_with_docarray(items: list[Item], query: dict[str, Any]) -> None:
    passes = compile_condition(query)
    ours = [item.id for item in items if passes(item)]
    assert ours == [item.id for item in filter_docs(DocList[Item](items), query)]


@settings(max_examples=150, deadline=None)
@given(item=ITEMS, query=st.recursive(LEAVES, combined, max_leaves=4))
def test_a_mapping_passes_like_the_document(item: Item, query: dict[str, Any]) -> None:
    passes = compile_condition(query)
    assert passes(item.model_dump() if hasattr(item, "model_dump") else item.dict()) == passes(item)


@given(
    item=ITEMS, path=st.sampled_from(["text", "price", "tags__n", "inner", "inner__names"]), sign=st.sampled_from(["$gt", "$in", "$regex"])
)
def test_values_that_do_not_compare_never_raise(item: Item, path: str, sign: str) -> None:
    operand: Any = {"$gt": 1, "$in": "abc", "$regex": "a"}[sign]
    assert compile_condition({path: {sign: operand}})(item) in (True, False)


ITEM = {"tags": {"key": 5, "deep": [{"x": 1}]}, "text": "tiger"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, True),
        ({"tags__key": {"$eq": 5}}, True),
        ({"tags__key": {"$ne": 5}}, False),
        ({"tags__deep__0__x": {"$eq": 1}}, True),
        ({"tags__deep__7__x": {"$eq": 1}}, False),
        ({"tags__deep__x": {"$exists": False}}, True),
        ({"$or": [{"text": {"$eq": "no"}}, {"tags__key": {"$eq": 5}}], "text": {"$eq": "lion"}}, False),
        ({"$not": {"text": {"$eq": "lion"}}, "tags__key": {"$eq": 4}}, False),
        ({"tags__key": {"$not": {"$gt": 5}}}, True),
        ({"tags__key": {"$or": [{"$lt": 2}, {"$gte": 5}]}}, True),
        ({"$or": {"text": {"$eq": "lion"}, "tags__key": {"$eq": 5}}}, True),
        ([{"text": {"$eq": "tiger"}}, {"tags__key": {"$eq": 4}}], False),
    ],
)
def test_queries_mean_what_mongodb_says(query: Any, expected: bool) -> None:
    assert compile_condition(query)(ITEM) is expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"x": {"$like": 1}}, "x: $like: unknown operator"),
        ({"$nor": []}, "$nor: unknown operator"),
        ({"x": 5}, "x: expected {operator: value}, got 5"),
        ({"x": {}}, "x: expected {operator: value}"),
        ("x", "expected {field: {operator: value}}, got 'x'"),
        ({"x": {"$in": 5}}, "x: $in: expected a list, got 5"),
        ({"x": {"$size": "2"}}, "x: $size: expected a whole number"),
        ({"x": {"$exists": "yes"}}, "x: $exists: expected true or false"),
        ({"x": {"$regex": "("}}, "x: $regex: not a regular expression"),
        ({"x": {"$eq": "{a.b}"}}, "x: $eq: '{a.b}' is no placeholder"),
        ({"$or": []}, "$or: expected a query"),
        ({"x": {"$not": {"$like": 1}}}, "x: $like: unknown operator"),
    ],
)
def test_mistakes_are_told_at_load_time(query: Any, message: str) -> None:
    with pytest.raises(FlowError) as caught:
        compile_condition(query, executor="rank")
    assert str(caught.value).startswith(f"executor 'rank': when: {message}")


def test_endless_nesting_is_refused() -> None:
    query: dict[str, Any] = {"x": {"$eq": 1}}
    for _ in range(2000):
        query = {"$not": query}
    with pytest.raises(FlowError, match="deep"):
        compile_condition(query)
