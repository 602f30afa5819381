"""Which parts others would wait for in vain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import InvalidInput
from streamflow.broker.flow import Graph, Node, Polling
from streamflow.broker.routing import Kind, Step, first_steps, next_steps
from streamflow.broker.unmet import unmet, unmet_by, waiting

NESTED = Graph(
    "f",
    (
        Node("root"), Node("a", needs=("root",)), Node("b", needs=("root",)), Node("c"), Node("one", needs=("a", "b")),
        Node("two", needs=("one", "c")), Node("side", needs=("a",), floating=True), Node("leaf", needs=("c",)),
    ),
)  # fmt: skip
SHARDED = Graph("f", (Node("s", shards=3, polling={"*": Polling.ALL}), Node("other"), Node("end", needs=("s", "other"))))


def names(steps: tuple[Step, ...]) -> set[str]:
    return {f"{step.executor} {step.part}" for step in steps}


@pytest.mark.parametrize(
    ("failing", "lost"),
    [
        ("a", {"one a", "two one", "gateway two"}),
        ("b", {"one b", "two one", "gateway two"}),
        ("c", {"two c"}),  # both leaves are lost, so nobody waits for the answer
        ("root", {"two one", "gateway two"}),  # nobody waits at one
        ("one", {"two one", "gateway two"}),
        ("leaf", {"gateway leaf"}),
        ("side", set()),
    ],
)
def test_what_is_lost_goes_on_from_place_to_place(failing: str, lost: set[str]) -> None:
    assert names(unmet(NESTED, next_steps(NESTED, failing, "/x"), "/x")) == lost


def test_a_shard_is_missed_by_the_others_and_behind_them() -> None:
    assert names(unmet(SHARDED, next_steps(SHARDED, "s", "/x", shard=1), "/x")) == {"s 1", "end s"}
    assert names(unmet(SHARDED, next_steps(SHARDED, "other", "/x"), "/x")) == {"end other"}


def test_the_queue_tells_whose_message_it_is() -> None:
    request = Envelope("r", "f", endpoint="/x", hop="s")
    assert names(unmet_by(SHARDED, request, "sf.f.s.again.1.r")) == {"s 1", "end s"}
    assert names(unmet_by(SHARDED, request, "sf.f.s.again.any.r")) == {"end s"}
    assert names(unmet_by(SHARDED, request, "sf.f.s.all.r")) == {"end s"}
    part = Envelope("r", "f", endpoint="/x", hop="end", part="other", expected=("s", "other"), reply="x")
    assert names(unmet_by(SHARDED, part, "sf.f.end.now.r")) == {"end other"}
    with pytest.raises(InvalidInput):
        unmet_by(SHARDED, part._replace(part="nobody"), "sf.f.end.now.r")


def test_where_the_others_wait() -> None:
    request = Envelope("r", "f")
    assert waiting(request, Step(Kind.GATHER, "s", "1"))[1] == "sf.f.s.part.r.gather.*"
    assert waiting(request, Step(Kind.ANSWER, "gateway", "1"), "x") == ("sf_f_gateway_part", "sf.f.gateway.part.r.join.x")


@st.composite
def flows(draw: st.DrawFn) -> Graph:
    nodes: list[Node] = []
    for number in range(draw(st.integers(2, 8))):
        before = ["gateway", *(node.name for node in nodes)]
        needs = draw(st.lists(st.sampled_from(before), min_size=1, max_size=3, unique=True))
        nodes.append(Node(f"n{number}", needs=tuple(needs)))
    return Graph("f", tuple(nodes))


@given(flows(), st.data())
def test_somebody_may_wait_wherever_a_part_is_lost(graph: Graph, data: st.DataObject) -> None:
    """Of a lost part's place at least one other is not lost; and when nothing is taken at all nobody waits anywhere."""
    lost = unmet(graph, next_steps(graph, data.draw(st.sampled_from(graph.names)), "/x"), "/x")
    assert len(names(lost)) == len(lost)
    for step in lost:
        assert set(step.expected) - {each.part for each in lost if each.executor == step.executor}
    assert unmet(graph, first_steps(graph, "/x"), "/x") == ()
