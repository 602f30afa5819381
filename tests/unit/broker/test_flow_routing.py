"""Routing: examples of the rules, and random flows run step by step against a recursive reading of the same flow."""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow.broker.errors import InvalidInput, NotFound
from streamflow.broker.flow import GATEWAY, Graph, Node, Polling
from streamflow.broker.routing import (
    Kind,
    Step,
    after_join,
    first_steps,
    next_steps,
    parameters_for,
    plan_for,
    reduces,
    runs,
    target_pattern,
)


def work(name: str) -> Step:
    return Step(Kind.WORK, name)


ANSWER = Step(Kind.ANSWER, GATEWAY)
DIAMOND = Graph("f", (Node("foo"), Node("bar", needs=("foo",)), Node("baz", needs=("foo",)), Node("end", needs=("bar", "baz"))))


@pytest.mark.feature("FL-04")
def test_a_chain_goes_step_by_step_to_the_client() -> None:
    flow = Graph("f", (Node("a"), Node("b", needs=("a",))))
    assert first_steps(flow, "/") == (work("a"),)
    assert next_steps(flow, "a", "/") == (work("b"),)
    assert next_steps(flow, "b", "/") == (ANSWER,)


@pytest.mark.feature("FL-06")
def test_branches_meet_in_the_order_of_needs() -> None:
    assert next_steps(DIAMOND, "foo", "/") == (work("bar"), work("baz"))
    assert next_steps(DIAMOND, "baz", "/") == (Step(Kind.JOIN, "end", "baz", ("bar", "baz")),)
    assert after_join(DIAMOND, "end", "/") == (work("end"),)


def test_several_leaves_meet_at_the_gateway() -> None:
    flow = Graph("f", (Node("a"), Node("b")))
    assert first_steps(flow, "/") == (work("a"), work("b"))
    assert next_steps(flow, "b", "/") == (Step(Kind.ANSWER, GATEWAY, "b", ("a", "b")),)
    assert after_join(flow, GATEWAY, "/") == (ANSWER,)


def test_an_empty_flow_and_one_without_a_target_answer_at_once() -> None:
    assert first_steps(Graph("f"), "/") == (ANSWER,)
    assert first_steps(DIAMOND, "/", "nobody") == (ANSWER,)


@pytest.mark.feature("FL-35")
def test_a_target_is_reached_without_a_hop_or_a_join_on_the_way() -> None:
    assert first_steps(DIAMOND, "/", "ba*z") == (work("baz"),)
    assert next_steps(DIAMOND, "baz", "/", "ba*z") == (ANSWER,)
    assert first_steps(DIAMOND, "/", "foo|end") == (work("foo"),)
    assert next_steps(DIAMOND, "foo", "/", "foo|end") == (work("end"),)


def test_a_join_passed_over_is_still_a_join() -> None:
    target = "foo|ba"
    assert next_steps(DIAMOND, "bar", "/", target) == (Step(Kind.JOIN, "end", "bar", ("bar", "baz")),)
    assert after_join(DIAMOND, "end", "/", target) == (ANSWER,)
    assert reduces(DIAMOND, "end", target)


def test_a_branch_passed_over_beside_real_work_is_left_out_but_one_the_user_drew_is_kept() -> None:
    assert next_steps(DIAMOND, "bar", "/", "foo|bar|end") == (work("end"),)
    drawn = Graph("f", (Node("foo"), Node("bar", needs=("foo",)), Node("end", needs=("foo", "bar"))))
    assert next_steps(drawn, "foo", "/") == (work("bar"), Step(Kind.JOIN, "end", "foo", ("foo", "bar")))


def test_of_two_branches_from_one_place_the_first_is_kept() -> None:
    nodes = (Node("foo"), Node("a", needs=("foo",)), Node("b", needs=("foo",)), Node("x"), Node("end", needs=("a", "x", "b")))
    assert next_steps(Graph("f", nodes), "foo", "/", "foo|x|end") == (Step(Kind.JOIN, "end", "a", ("a", "x")),)


@pytest.mark.feature("FL-07")
def test_no_reduce_gets_every_branch_even_those_passed_over() -> None:
    flow = Graph("f", (*DIAMOND.nodes[:3], Node("end", needs=("bar", "baz"), no_reduce=True)))
    parts = tuple(Step(Kind.JOIN, "end", branch, ("bar", "baz")) for branch in ("bar", "baz"))
    assert next_steps(flow, "foo", "/", "foo|end") == parts
    assert not reduces(flow, "end", "foo|end") and reduces(flow, "end", "foo") and reduces(flow, GATEWAY)


@pytest.mark.feature("FL-21")
def test_floating_executors_get_a_copy_and_answer_nobody() -> None:
    flow = Graph("f", (Node("a"), Node("log", needs=("a",), floating=True), Node("mail", needs=("log",), floating=True)))
    assert next_steps(flow, "a", "/") == (Step(Kind.WORK, "log", floating=True), ANSWER)
    assert next_steps(flow, "log", "/") == (Step(Kind.WORK, "mail", floating=True),)
    assert next_steps(flow, "mail", "/") == ()
    assert next_steps(flow, "a", "/", "a|mail") == (Step(Kind.WORK, "mail", floating=True), ANSWER)


def test_a_floating_join_for_nobody_is_not_made() -> None:
    flow = Graph("f", (Node("a"), Node("b"), Node("log", needs=("a", "b"), floating=True)))
    assert next_steps(flow, "a", "/", "a|b") == (Step(Kind.ANSWER, GATEWAY, "a", ("a", "b")),)


@pytest.mark.feature("SC-06")
def test_all_polled_shards_are_gathered_behind_the_executor() -> None:
    flow = Graph("f", (Node("index", shards=2), Node("rank", needs=("index",), shards=3, polling={"*": Polling.ALL})))
    assert first_steps(flow, "/search") == (Step(Kind.ALL, "index", expected=("0", "1")),)
    assert next_steps(flow, "index", "/search", shard=1) == (Step(Kind.GATHER, "index", "1", ("0", "1")),)
    assert next_steps(flow, "index", "/search") == (Step(Kind.ALL, "rank", expected=("0", "1", "2")),)
    assert first_steps(flow, "/index") == (work("index"),)
    assert next_steps(flow, "index", "/other", shard=1) == (Step(Kind.ALL, "rank", expected=("0", "1", "2")),)


def test_who_was_never_meant_to_get_a_request_is_told() -> None:
    with pytest.raises(NotFound, match="nobody"):
        next_steps(DIAMOND, "nobody", "/")
    with pytest.raises(InvalidInput, match="'bar' got a request with target_executor 'foo'"):
        next_steps(DIAMOND, "bar", "/", "foo")
    assert runs(DIAMOND, "foo", "fo") and not runs(DIAMOND, "bar", "fo")


def test_a_graph_forgets_old_patterns() -> None:
    flow = Graph("f", (Node("a"),))
    for number in range(2000):
        plan_for(flow, f"a{number}")
    assert len(flow.plans) <= 256


@pytest.mark.parametrize("text", ["(a+)+$", "(a|a)*b", "(", "*", "a" * 300, r"\w*\w*\w*\w*!", "a?" * 20 + "a", "(?P<x>a){9}"])
def test_a_target_that_is_wrong_or_may_match_for_ever_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="target_executor"):
        target_pattern(text)


@pytest.mark.feature("FL-35")
@pytest.mark.parametrize("text", ["bar*", "exec[12]$", "(encoder|indexer)_.*", "a.*|b.*|c.*|d.*|e.*", r"^(?!rank)\w+$"])
def test_a_target_as_people_write_it_is_taken(text: str) -> None:
    pattern = target_pattern(text)
    started = time.perf_counter()
    assert pattern is not None and not pattern.match("!" * 64)
    pattern.match("a" * 63 + "!")
    assert time.perf_counter() - started < 1


@pytest.mark.feature("FL-36")
def test_parameters_with_an_executor_name_reach_only_it() -> None:
    given_ = {"k": 1, "exec1__k": 2, "exec2__only": 3, "exec1__": 4, "_x": 5, "__results__": 6, "exec1__a__b": 7}
    assert parameters_for(given_, "exec1") == {"k": 2, "_x": 5, "__results__": 6, "a__b": 7}
    assert parameters_for(given_, "exec2") == {"k": 1, "only": 3, "_x": 5, "__results__": 6}
    assert parameters_for({"a__b__k": 1}, "a__b") == {"k": 1}
    plain = {"k": {"x__y": 1}}
    assert parameters_for(plain, "e") == plain and parameters_for(plain, "e") is not plain


# Random flows. The data of a request is a set of marks: each executor adds its own name, so a join is a union.

Marks = frozenset[str]
NAMES = ("enc", "ind", "rank", "log", "foo1", "foo2", "bar1", "bar2", "x", "y", "z", "enc2")
TARGETS = st.sampled_from(["", "", "foo", "bar|enc$", "enc", "x|y|z", ".*2", "nobody", "rank|bar.", "(?!foo)", "[e-l]"])


@st.composite
def flows(draw: st.DrawFn) -> Graph:
    nodes: list[Node] = []
    for name in NAMES[: draw(st.integers(2, 12))]:
        needs = draw(st.lists(st.sampled_from([GATEWAY, *(node.name for node in nodes)]), min_size=1, max_size=4, unique=True))
        has_floating = any(node.floating and node.name in needs for node in nodes)
        is_floating = has_floating or draw(st.integers(0, 4)) == 0
        is_all = draw(st.integers(0, 3)) == 0
        nodes.append(
            Node(
                name,
                tuple(needs),
                floating=is_floating,
                no_reduce=draw(st.integers(0, 3)) == 0,
                shards=draw(st.integers(1, 3)) if is_all else 1,
                polling={"*": Polling.ALL} if is_all else {},
            )
        )
    order = draw(st.permutations(nodes))
    return Graph("f", tuple(order))


@dataclass
class Interpreter:
    """Runs the steps of one request with queues and joins, as workers and reducers would, in an arbitrary order."""

    flow: Graph
    target: str
    rotation: int
    ran: Counter[tuple[str, Marks]] = field(default_factory=Counter)
    answers: list[Marks] = field(default_factory=list)
    parts: dict[tuple[Kind, str], dict[str, Marks]] = field(default_factory=dict)
    matrices: dict[str, list[Marks]] = field(default_factory=dict)
    queue: deque[tuple[Step, Marks]] = field(default_factory=deque)

    def run(self) -> None:
        self.publish(first_steps(self.flow, "/", self.target), frozenset())
        while self.queue:
            self.queue.rotate(self.rotation)
            self.take(*self.queue.popleft())
        assert not self.parts, "parts of a join that never completed"

    def publish(self, steps: tuple[Step, ...], marks: Marks) -> None:
        self.queue.extend((step, marks) for step in steps)

    def take(self, step: Step, marks: Marks) -> None:
        name = step.executor
        if step.kind is Kind.ANSWER and not step.expected:
            self.answers.append(marks)
        elif step.kind is Kind.WORK:
            self.ran[name, marks] += 1
            self.publish(next_steps(self.flow, name, "/", self.target, shard=0), marks | {name})
        elif step.kind is Kind.ALL:
            self.ran[name, marks] += 1
            for shard in map(int, step.expected):
                self.publish(next_steps(self.flow, name, "/", self.target, shard=shard), marks | {name})
        else:
            self.collect(step, marks)

    def collect(self, step: Step, marks: Marks) -> None:
        name, parts = step.executor, self.parts.setdefault((step.kind, step.executor), {})
        assert step.part in step.expected and step.part not in parts, "a part twice"
        parts[step.part] = marks
        if set(parts) != set(step.expected):
            return
        del self.parts[step.kind, name]
        whole = frozenset[str]().union(*parts.values())
        if step.kind is Kind.GATHER:
            self.publish(next_steps(self.flow, name, "/", self.target), whole)
            return
        self.matrices[name] = [parts[branch] for branch in step.expected]
        self.publish(after_join(self.flow, name, "/", self.target), whole)


@dataclass(frozen=True)
class Reading:
    """The same flow read recursively: what comes in and out of each executor."""

    flow: Graph
    target: str

    def is_run(self, name: str) -> bool:
        return not self.target or re.match(self.target, name) is not None

    def output(self, name: str) -> Marks:
        return _output(self, name)

    def incoming(self, name: str) -> Marks:
        return frozenset[str]().union(*(self.output(need) for need in self.flow.node(name).needs))

    def answer(self) -> Marks:
        return frozenset[str]().union(*(self.output(leaf.name) for leaf in self.flow.leaves))


def _output(reading: Reading, name: str) -> Marks:
    @cache
    def output(each: str) -> Marks:
        if each == GATEWAY:
            return frozenset()
        came = frozenset[str]().union(*(output(need) for need in reading.flow.node(each).needs))
        return came | {each} if reading.is_run(each) else came

    return output(name)


@settings(max_examples=400, deadline=None)
@given(flow=flows(), target=TARGETS, rotation=st.integers(-3, 3))
def test_random_flows_do_what_a_recursive_reading_says(flow: Graph, target: str, rotation: int) -> None:
    flow.validate()
    interpreter, reading = Interpreter(flow, target, rotation), Reading(flow, target)
    interpreter.run()
    running = [name for name in flow.names if reading.is_run(name)]
    assert interpreter.ran == Counter((name, reading.incoming(name)) for name in running), "each executor once, with the right input"
    assert interpreter.answers == [reading.answer()], "one answer, with all that the leaves made"
    for name in running:
        node = flow.node(name)
        if node.no_reduce and len(node.needs) > 1:
            assert interpreter.matrices[name] == [reading.output(need) for need in node.needs], "branches in the order of needs"


@settings(max_examples=200, deadline=None)
@given(flow=flows(), target=TARGETS)
def test_random_flows_never_join_one_place_twice_or_float_into_an_answer(flow: Graph, target: str) -> None:
    plan = plan_for(flow, target)
    for origin, steps in plan.after.items():
        merging = [step.executor for step in steps if step.kind in (Kind.JOIN, Kind.ANSWER) and reduces(flow, step.executor, target)]
        assert len(merging) == len(set(merging))
        if origin != GATEWAY and flow.node(origin).floating:
            assert all(step.floating for step in steps)
        for step in steps:
            assert step.executor == GATEWAY or flow.node(step.executor).floating is step.floating


@settings(max_examples=100, deadline=None)
@given(flow=flows(), target=TARGETS)
def test_routing_is_the_same_after_the_key_value_bucket(flow: Graph, target: str) -> None:
    read = Graph.from_dict(flow.to_dict())
    assert plan_for(read, target) == plan_for(flow, target)
