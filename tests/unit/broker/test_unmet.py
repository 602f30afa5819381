"""Which parts others would wait for in vain."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import InvalidInput
from streamflow.broker.flow import Graph, Node, Polling
from streamflow.broker.routing import Kind, Step, after_join, first_steps, next_steps
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
        ("c", {"two c", "gateway two", "gateway leaf"}),  # both leaves: who fails on the way to one tells of that alone
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


def left(graph: Graph, failing: set[str]) -> dict[str, set[str]]:
    """Parts that wait for ever, by place, when each executor of `failing` ends what reaches it."""
    arrived: dict[str, dict[str, bool]] = {}  # at a place: part -> whether it is a good one
    todo = [(step, True) for step in first_steps(graph, "/x")]
    while todo:
        step, is_good = todo.pop()
        if step.meets:
            here = arrived.setdefault(step.executor, {})
            is_first = step.part not in here  # the broker drops a second one
            here.setdefault(step.part, is_good)
            if is_first and set(here) == set(step.expected) and all(here.values()):
                todo += ((each, True) for each in after_join(graph, step.executor, "/x"))
        elif step.kind is not Kind.ANSWER:
            follows = next_steps(graph, step.executor, "/x")
            failed = step.executor in failing
            todo += ((each, not failed) for each in (unmet(graph, follows, "/x") if failed else follows))
    expected = {
        step.executor: set(step.expected) for name in ("gateway", *graph.names) for step in next_steps(graph, name, "/x") if step.meets
    }
    return {place: set(parts) for place, parts in arrived.items() if set(parts) != expected[place]}


def test_two_that_fail_leave_nothing_to_each_other() -> None:
    assert left(NESTED, {"a", "c"}) == {}


@settings(max_examples=300)
@given(flows(), st.data())
def test_whatever_fails_no_part_waits_for_ever(graph: Graph, data: st.DataObject) -> None:
    assert left(graph, data.draw(st.sets(st.sampled_from(graph.names), max_size=4))) == {}
    assert unmet(graph, first_steps(graph, "/x"), "/x") == ()
