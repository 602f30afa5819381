"""Which schemas fit: as pydantic and docarray print them, and any other that may come."""

from __future__ import annotations

import json
import random
from enum import Enum
from typing import Any, Literal

import pytest
from docarray import BaseDoc, DocList
from docarray.documents import ImageDoc, TextDoc
from docarray.documents.legacy import LegacyDocument
from docarray.typing import AnyTensor, ImageUrl, NdArray
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, create_model

from streamflow.broker.schema_fit import View, misfit
from streamflow.workers.schemas import json_schema

pytestmark = pytest.mark.feature("FL-12")


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseDoc):
    number: int
    tensor: NdArray[3]


class Recursive(BaseDoc):
    number: int
    children: DocList[Recursive] = []


class RecursiveText(BaseDoc):
    number: str
    children: DocList[RecursiveText] = []


def doc(**fields: Any) -> type[BaseDoc]:
    return create_model(
        "Doc", __base__=BaseDoc, **{name: each if isinstance(each, tuple) else (each, ...) for name, each in fields.items()}
    )


def compare(given: type[BaseModel], taken: type[BaseModel]) -> tuple[str, ...] | None:
    return misfit(View.of(json_schema(given)), View.of(json_schema(taken)))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (int, float),
        (bool, int),
        (str, str | None),
        (str | None, str),
        (int | str, str),
        (ImageUrl, str),
        (str, bytes),
        (str, Color),
        (Color, Literal["red", "green"]),
        (NdArray[3], NdArray[3]),
        (NdArray[4, 2], NdArray[8]),
        (NdArray[3], NdArray),
        (AnyTensor, NdArray[128]),
        (NdArray["x", 3], NdArray[7, 3]),
        (list[float], NdArray[3]),
        (NdArray[3], list[float]),
        (NdArray[3, 3], list[list[float]]),
        (list[int], list[float]),
        (dict[str, int], dict[str, Any]),
        (Inner, Inner),
        (DocList[Inner], DocList[Inner]),
        (Any, Inner),
        (Inner, Any),
        (Recursive, Recursive),
        (str, (str, "x")),
    ],
)
def test_what_fits(given: Any, taken: Any) -> None:
    assert compare(doc(field=given), doc(field=taken)) is None


@pytest.mark.parametrize(
    ("given", "taken", "path", "has", "wants"),
    [
        (float, int, "field", "number", "integer"),
        (int, str, "field", "integer", "string"),
        (NdArray[3], str, "field", "tensor [3]", "string"),
        (NdArray[3], NdArray[128], "field", "tensor [3]", "tensor [128]"),
        (AnyTensor, list[str], "field", "tensor", "array of string"),
        (list[str], list[int], "field[]", "string", "integer"),
        (int | None, str | None, "field", "integer", "string"),
        (int | float, str | bytes, "field", "integer or number", "string"),
        (Literal["a"], Color, "field", "one of 'a'", "one of 'red', 'blue'"),
        (Inner, doc(number=str, tensor=NdArray[3]), "field.number", "integer", "string"),
        (DocList[Inner], DocList[doc(more=str)], "field[].more", "", "string"),
        (Inner, str, "field", "Inner", "string"),
        (Inner, DocList[Inner], "field", "Inner", "array of Inner"),
        (Recursive, RecursiveText, "field.number", "integer", "string"),
    ],
)
def test_what_does_not_fit_is_told_with_its_path(given: Any, taken: Any, path: str, has: str, wants: str) -> None:
    assert compare(doc(field=given), doc(field=taken)) == (path, has, wants)


def test_what_the_taker_has_a_default_for_may_be_missing() -> None:
    assert compare(doc(a=str), doc(a=str, b=(int, 3), c=(Inner | None, None))) is None
    assert compare(doc(a=str), doc(a=str, b=int | None)) == ("b", "", "integer or null")
    assert compare(doc(a=str, b=int), doc(a=str)) is None


def test_docarrays_own_documents_fit_themselves() -> None:
    for kind in (TextDoc, ImageDoc, LegacyDocument, Recursive):
        assert compare(kind, kind) is None
    assert compare(TextDoc, LegacyDocument) is None


def test_a_schema_that_goes_in_circles_ends() -> None:
    circle = {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "string"}]}}}
    again = {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}}
    for schema in (circle, again):
        assert misfit(View.of(schema), View.of(schema)) is None


NAMES = st.sampled_from("abcd")
REFERENCES = st.sampled_from([{"$ref": "#/$defs/P"}, {"$ref": "#/$defs/Q"}, {"$ref": "#/$defs/Missing"}])
PLAIN = (
    st.sampled_from(["string", "integer", "number", "boolean", "null", "object", "array"]).map(lambda kind: {"type": kind})
    | st.lists(st.sampled_from(["string", "integer", "null"]), max_size=2).map(lambda kinds: {"type": kinds})
    | st.lists(st.integers() | st.text(max_size=2), max_size=3).map(lambda values: {"enum": values})
    | st.integers().map(lambda value: {"const": value})
    | st.sampled_from(["[3]", "[2, 4]", "not specified", "[x, 3]"]).map(
        lambda shape: {"type": "array", "items": {"type": "number"}, "tensor/array shape": shape}
    )
    | REFERENCES
    | st.just({})
)


def document(inner: Any) -> Any:
    fields = st.dictionaries(NAMES, inner, max_size=4)
    return st.tuples(fields, st.lists(NAMES, max_size=3)).map(
        lambda parts: {"type": "object", "title": "T", "properties": parts[0], "required": parts[1]}
    )


NODES = st.recursive(
    PLAIN,
    lambda inner: (
        document(inner)
        | inner.map(lambda node: {"type": "array", "items": node})
        | st.lists(inner, min_size=1, max_size=3).map(lambda nodes: {"anyOf": nodes})
        | inner.map(lambda node: {"allOf": [node]})
        | inner.map(lambda node: {"type": "object", "additionalProperties": node})
    ),
    max_leaves=12,
)
SCHEMAS = st.tuples(document(NODES), NODES, NODES).map(lambda parts: {**parts[0], "$defs": {"P": parts[1], "Q": parts[2]}})


def shuffled(node: Any, order: random.Random) -> Any:
    if isinstance(node, dict):
        keys = order.sample(list(node), len(node))
        return {key: shuffled(node[key], order) for key in keys}
    return [shuffled(each, order) for each in node] if isinstance(node, list) else node


@settings(max_examples=300, deadline=None)
@given(schema=SCHEMAS)
def test_a_schema_fits_itself(schema: dict[str, Any]) -> None:
    assert misfit(View.of(schema), View.of(json.loads(json.dumps(schema)))) is None


@settings(max_examples=300, deadline=None)
@given(schema=SCHEMAS, order=st.randoms(use_true_random=False))
def test_the_order_of_anything_does_not_matter(schema: dict[str, Any], order: random.Random) -> None:
    assert misfit(View.of(schema), View.of(shuffled(schema, order))) is None


@settings(max_examples=300, deadline=None)
@given(one=SCHEMAS, other=SCHEMAS)
def test_any_two_schemas_are_compared_and_told_in_words(one: dict[str, Any], other: dict[str, Any]) -> None:
    found = misfit(View.of(one), View.of(other))
    assert found is None or (found.path and found.taken)
