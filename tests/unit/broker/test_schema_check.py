"""Schemas along the graph: who is compared with whom, and what is said."""

from __future__ import annotations

from typing import Any

import pytest

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.errors import FlowError
from streamflow.broker.flow import Graph, Node
from streamflow.broker.schema_check import MAX_SHOWN, require_fitting_schemas, schema_problems

pytestmark = pytest.mark.feature("FL-12")

TEXT, NUMBER = {"type": "string"}, {"type": "number"}


def doc(*required: str, optional: tuple[str, ...] = (), **typed: Any) -> dict[str, Any]:
    fields = {**dict.fromkeys((*required, *optional), TEXT), **typed}
    return {"type": "object", "title": "Doc", "properties": fields, "required": [*required, *typed]}


def on(name: str, request: dict[str, Any] | None, response: dict[str, Any] | None) -> EndpointInfo:
    return EndpointInfo(name, request, response)


def problems(nodes: list[Node], **endpoints: list[EndpointInfo]) -> list[str]:
    return list(schema_problems(Graph("shop", tuple(nodes)), endpoints))


CHAIN = [Node("encoder"), Node("indexer", ("encoder",))]


def test_a_field_that_the_one_before_does_not_give_is_named() -> None:
    found = problems(CHAIN, encoder=[on("/search", doc("text"), doc("text"))], indexer=[on("/search", doc("embedding"), doc())])
    assert found == ["encoder -> indexer, /search: field 'embedding': indexer requires it, encoder does not give it"]


def test_a_field_of_another_type_is_named_with_both() -> None:
    found = problems(CHAIN, encoder=[on("/a", doc("x"), doc("x"))], indexer=[on("/a", doc(x=NUMBER), None)])
    assert found == ["encoder -> indexer, /a: field 'x': encoder gives string, indexer takes number"]
    inner, other = {"properties": {"in": doc("x")}}, {"properties": {"in": doc(x=NUMBER)}}
    found = problems(CHAIN, encoder=[on("/a", None, inner)], indexer=[on("/a", other, None)])
    assert found == ["encoder -> indexer, /a: field 'in.x': encoder gives string, indexer takes number"]


@pytest.mark.parametrize(
    ("encoder", "indexer"),
    [
        ([on("/a", doc("x"), doc("x", "more"))], [on("/a", doc("x", optional=("y",)), None)]),
        ([on("/a", doc("x"), None)], [on("/a", doc("y"), None)]),
        ([on("/a", doc("x"), doc("x"))], [on("/a", None, None)]),
        ([on("/a", doc("x"), doc("x"))], [on("/b", doc("y"), None)]),
        ([on("/a", doc("x"), doc("x"))], []),
        ([], [on("/a", doc("y"), None)]),
    ],
)
def test_what_fits_passes(encoder: list[EndpointInfo], indexer: list[EndpointInfo]) -> None:
    assert problems(CHAIN, encoder=encoder, indexer=indexer) == []


def test_an_executor_of_which_nothing_is_known_fits_everything() -> None:
    nodes = [Node("a"), Node("far", ("a",), external=True), Node("b", ("far",))]
    assert problems(nodes, a=[on("/x", doc("p"), doc("p"))], b=[on("/x", doc("q"), None)]) == []


def test_the_first_executor_takes_what_it_says() -> None:
    assert problems([Node("a")], a=[on("/x", doc("p"), doc("q"))]) == []


@pytest.mark.feature("FL-13")
def test_executors_without_the_endpoint_let_it_through_and_fallbacks_do_not() -> None:
    nodes = [Node("a"), Node("b", ("a",)), Node("c", ("b",))]
    given = {"a": [on("/x", doc("p"), doc("p"))], "c": [on("/x", doc("q"), None)]}
    assert problems(nodes, b=[on("/y", doc(), doc("q"))], **given) == [
        "a -> c, /x: field 'q': c requires it, a does not give it",
    ]
    assert problems(nodes, b=[on("/default", doc("p"), doc("q"))], **given) == []
    assert problems(nodes, b=[on("/default", doc("q"), doc("q"))], **given) == [
        "a -> b, /x: field 'q': b requires it, a does not give it",
    ]


def test_every_endpoint_is_looked_at() -> None:
    found = problems(
        CHAIN,
        encoder=[on("/a", doc("x"), doc("x")), on("/default", doc("x"), doc("y"))],
        indexer=[on("/a", doc("y"), None), on("/b", doc("z"), None)],
    )
    assert [line.split(":")[0] for line in found] == ["encoder -> indexer, /a", "encoder -> indexer, /b"]


JOIN = [Node("a"), Node("b", ("gateway",)), Node("c", ("a", "b"))]


def test_at_a_join_the_fields_of_all_branches_come_together() -> None:
    given = {"a": [on("/x", doc("p"), doc("p"))], "b": [on("/x", doc("p"), doc("q"))]}
    assert problems(JOIN, c=[on("/x", doc("p", "q"), None)], **given) == []
    assert problems(JOIN, c=[on("/x", doc("p", "r"), None)], **given) == ["a, b -> c, /x: field 'r': c requires it, a, b do not give it"]
    either = [Node("a"), Node("b", ("gateway",)), Node("c", ("a", "b"), no_reduce=True)]
    assert problems(either, c=[on("/x", doc("p"), None)], **given) == ["b -> c, /x: field 'p': c requires it, b does not give it"]
    untyped = {**given, "b": [on("/x", None, None)]}
    assert problems(JOIN, c=[on("/x", doc("r"), None)], **untyped) == []


def test_of_a_field_that_several_branches_give_one_type_has_to_fit() -> None:
    given = {"a": [on("/x", doc("p"), doc("p"))], "b": [on("/x", doc("p"), doc(p=NUMBER))]}
    assert problems(JOIN, c=[on("/x", doc(p=NUMBER), None)], **given) == []
    assert problems(JOIN, c=[on("/x", doc(p={"type": "boolean"}), None)], **given) == [
        "a, b -> c, /x: field 'p': a, b give string, c takes boolean"
    ]


def test_a_branch_straight_from_the_client_brings_what_clients_send() -> None:
    nodes = [Node("a"), Node("c", ("gateway", "a"))]
    assert problems(nodes, a=[on("/x", doc("p"), doc("q"))], c=[on("/x", doc("p", "q", "r"), None)]) == []


def test_unknown_fields_travel_on_with_documents_that_are_changed_in_place() -> None:
    nodes = [Node("a"), Node("b", ("a",)), Node("c", ("b",))]
    given = {"a": [on("/x", doc("p"), doc("p", "q"))], "c": [on("/x", doc("p", "q"), None)]}
    assert problems(nodes, b=[on("/x", doc("p"), doc("p"))], **given) == []
    assert problems(nodes, b=[on("/x", doc("p"), doc("p", "new"))], **given) == [
        "b -> c, /x: field 'q': c requires it, b does not give it",
    ]


def test_floating_executors_are_compared_too() -> None:
    nodes = [Node("a"), Node("log", ("a",), floating=True)]
    assert len(problems(nodes, a=[on("/x", doc("p"), doc("p"))], log=[on("/x", doc("q"), None)])) == 1


def test_all_misfits_are_told_at_once_but_not_too_many() -> None:
    graph = Graph("shop", tuple(CHAIN))
    require_fitting_schemas(graph, {"encoder": [on("/a", doc(), doc())], "indexer": [on("/a", doc(), None)]})
    wanted = doc(*(f"f{number}" for number in range(MAX_SHOWN + 2)))
    with pytest.raises(FlowError) as caught:
        require_fitting_schemas(graph, {"encoder": [on("/a", doc(), doc())], "indexer": [on("/a", wanted, None)]})
    first, *lines = str(caught.value).splitlines()
    assert first == "flow 'shop': documents do not fit:" and len(lines) == MAX_SHOWN + 1 and lines[-1] == "... and 2 more"
