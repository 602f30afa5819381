"""Finding routing keys in JSON bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.errors import InvalidInput
from streamflow.gateway.peek import NOTHING, Routing, parse, peek

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.text(min_size=1).filter(lambda text: text.isprintable())


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_a_plain_body_is_not_parsed_at_all() -> None:
    assert peek(b'{"data": [this is not JSON]}') is NOTHING


def test_keys_of_the_header_are_read_in_both_spellings() -> None:
    expected = Routing("/search", "enc.*", "r1", 1893456000.0)
    camel = {"header": {"requestId": "r1", "targetExecutor": "enc.*", "execEndpoint": "/search", "timeout": 1893456000}, "data": []}
    snake = {"data": [], "header": {"request_id": "r1", "target_executor": "enc.*", "exec_endpoint": "/search", "timeout": 1893456000}}
    assert peek(dump(camel)) == expected
    assert peek(dump(snake)) == expected


def test_top_level_keys_are_read_and_the_header_wins() -> None:
    assert peek(dump({"execEndpoint": "/a", "targetExecutor": "b", "data": []})) == Routing("/a", "b")
    assert peek(dump({"execEndpoint": "/a", "header": {"execEndpoint": "/b"}})).endpoint == "/b"
    assert peek(dump({"header": {"execEndpoint": "/b"}, "execEndpoint": "/a"})).endpoint == "/b"


def test_the_body_of_jinas_client_is_read_by_its_leading_header_alone() -> None:
    body = b'{"header":{"request_id":"r1","exec_endpoint":"/x"},"parameters":{},"data":[NOT PARSED],"exec_endpoint":"/x"}'
    assert peek(body) == Routing("/x", "", "r1")


@pytest.mark.parametrize(
    "body",
    [
        b'{"header":{"request_id":"r1"},"data":[{"header":5}],"targetExecutor":"t"}',
        b'{"header":{"request_id":"r1"},"data":[],"targetExecutor":"t"}',
        b'{"header":{"request_id":"a}"},"data":[],"targetExecutor":"t"}',
        b'{"header":{"request_id":"a},","x":1},"data":[],"targetExecutor":"t"}',
    ],
)
def test_a_leading_header_that_does_not_tell_all_is_not_trusted(body: bytes) -> None:
    assert peek(body) == parse(body)
    assert peek(body).target_executor == "t"


def test_documents_with_fields_of_these_names_confuse_nobody() -> None:
    document = {"header": {"request_id": "no"}, "targetExecutor": 5, "execEndpoint": ["no"], "request_id": None}
    assert peek(dump({"data": [document]})) == NOTHING
    assert peek(dump([document])) == NOTHING
    assert peek(dump({"data": [document], "header": {"request_id": "yes"}})).request_id == "yes"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"header": []}, "header"),
        ({"header": {"request_id": 5}}, "header.request_id"),
        ({"targetExecutor": {}}, "targetExecutor"),
        ({"execEndpoint": True}, "execEndpoint"),
        ({"header": {"timeout": -1}}, "header.timeout"),
        ({"header": {"timeout": "soon"}}, "header.timeout"),
        ({"header": {"timeout": True}}, "header.timeout"),
    ],
)
def test_a_key_of_the_wrong_type_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        peek(dump(body))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a":' * 2000])
def test_what_is_no_object_is_refused_by_parse(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse(body)


@given(st.dictionaries(st.sampled_from(["data", "parameters", "x"]), json_values), names, names, st.permutations(range(4)), st.booleans())
def test_peek_agrees_with_parsing_whatever_the_order(
    rest: dict[str, Any], request_id: str, target: str, order: list[int], spaced: bool
) -> None:
    items: list[tuple[str, Any]] = [("header", {"request_id": request_id}), ("targetExecutor", target), *rest.items()]
    ranked = sorted(items, key=lambda item: order[items.index(item) % 4])
    body = json.dumps(dict(ranked), separators=(", ", " : ") if spaced else (",", ":")).encode()
    assert peek(body) == parse(body) == Routing("", target, request_id)


@given(json_values)
def test_peek_never_raises_for_a_body_of_documents(value: Any) -> None:
    assert peek(dump({"data": value})) == NOTHING
