"""Where a request goes next: pure functions on a `Graph`. Each hop calls them with the flow definition, so nothing in between has to.

The rules:
- An executor runs when `target_executor` is empty or matches its name (`re.match`). All others are passed over without a hop: what they
  would have received goes on to those behind them. Their `when` does not apply then.
- An executor with several branches gets them joined. A join expects, in the order of `needs`, just the branches that arrive. A branch that
  was passed over adds nothing where another branch comes from the same place or from further along, so it is left out: it could only
  overwrite the other's work with older copies. A `no_reduce` executor gets all its branches, as user code may count them.
- Leaves (`Graph.leaves`) make the answer; several are joined at "gateway". A floating executor gets a copy and answers nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from .errors import InvalidInput
from .flow import GATEWAY, Graph, Node

MAX_PATTERN = 256
_PLANS = 256  # patterns remembered per graph; clients choose them, so there is a bound
_ROUTES = 4096  # likewise, endpoints included


class Kind(StrEnum):
    """What to do with the output of a hop."""

    WORK = "work"  # publish to the executor's work queue
    ALL = "all"  # publish once to the executor's fan-out subject: each shard gets it
    JOIN = "join"  # publish as one branch to the reducer before the executor
    GATHER = "gather"  # publish as one shard's answer to the reducer behind the executor
    ANSWER = "answer"  # the client; with `expected`: to the reducer of the whole flow, executor "gateway"


@dataclass(frozen=True, slots=True)
class Step:
    """One publish. `part` is the branch (JOIN, ANSWER) or shard (GATHER) that it stands for, `expected` all parts in merge order."""

    kind: Kind
    executor: str
    part: str = ""
    expected: tuple[str, ...] = ()
    floating: bool = False  # a copy on a branch that answers nobody

    @property
    def meets(self) -> bool:
        """Whether this is a part that waits for others (a JOIN, a GATHER, or an ANSWER of several leaves)."""
        return bool(self.part)


Steps = tuple[Step, ...]


def first_steps(graph: Graph, endpoint: str, target_executor: str = "") -> Steps:
    """What whoever accepts a request publishes. An ANSWER without parts among it means that no executor is to run for the answer: echo."""
    return next_steps(graph, GATEWAY, endpoint, target_executor)


def next_steps(graph: Graph, executor: str, endpoint: str, target_executor: str = "", *, shard: int | None = None) -> Steps:
    """What to publish after `executor` is done; empty at the end of a floating branch.

    A worker of a sharded executor passes its `shard`: for an ALL-polled endpoint it gets one GATHER step. The reducer that gathered the
    shards calls without it. Raises `NotFound` for an unknown executor and `InvalidInput` for one that the request was never meant for.
    """
    key = (executor, endpoint, target_executor, shard)
    steps: Steps | None = graph.routes.get(key)
    if steps is None:
        if len(graph.routes) >= _ROUTES:
            graph.routes.clear()
        steps = graph.routes[key] = _next_steps(graph, executor, endpoint, target_executor, shard)
    return steps


def _next_steps(graph: Graph, executor: str, endpoint: str, target_executor: str, shard: int | None) -> Steps:
    if executor != GATEWAY and shard is not None and graph.node(executor).polls_all(endpoint):
        node = graph.node(executor)
        return (Step(Kind.GATHER, executor, str(shard), node.shard_names, node.floating),)
    return _polled(graph, endpoint, _after(graph, executor, target_executor))


def after_join(graph: Graph, executor: str, endpoint: str, target_executor: str = "") -> Steps:
    """What the reducer before `executor` publishes when all branches are in: work for it, or what follows when it is passed over."""
    if executor == GATEWAY:
        return (Step(Kind.ANSWER, GATEWAY),)
    if not runs(graph, executor, target_executor):
        return next_steps(graph, executor, endpoint, target_executor)
    return _polled(graph, endpoint, (_work(graph.node(executor)),))


def runs(graph: Graph, executor: str, target_executor: str = "") -> bool:
    """Whether a request with this `target_executor` is processed by `executor`."""
    return graph.node(executor).name in plan_for(graph, target_executor).running


def carries_all(graph: Graph, executor: str, endpoint: str, target_executor: str = "") -> bool:
    """Whether all that the answer is made of passes `executor`, in one piece: then its documents may flow on one by one.

    False when a branch beside it adds to the answer, or when each of its shards gives a part.
    """
    if graph.node(executor).polls_all(endpoint):
        return False
    after = plan_for(graph, target_executor).after
    seen, todo = {executor}, [GATEWAY]
    while todo:
        for step in after.get(todo.pop(), ()):
            if step.kind is Kind.ANSWER and not step.floating:
                return False
            if step.executor not in seen and step.kind is not Kind.ANSWER and not step.floating:
                seen.add(step.executor)
                todo.append(step.executor)
    return True


def reduces(graph: Graph, executor: str, target_executor: str = "") -> bool:
    """Whether the join before `executor` merges the branches into one DocList; False: hand them over as a matrix (`no_reduce`)."""
    return executor == GATEWAY or not (graph.node(executor).no_reduce and runs(graph, executor, target_executor))


def parameters_for(parameters: Mapping[str, Any], executor: str) -> dict[str, Any]:
    """The parameters that `executor` sees: `<executor>__k` as `k`, which wins over a plain `k`; those for other executors are left out."""
    prefix = f"{executor}__"
    general = {key: value for key, value in parameters.items() if str(key).find("__") < 1}
    if len(general) == len(parameters):
        return general
    return general | {key[len(prefix) :]: value for key, value in parameters.items() if key.startswith(prefix) and key != prefix}


@lru_cache(maxsize=1024)
def target_pattern(text: str) -> re.Pattern[str] | None:
    """The compiled `target_executor`, None when empty. Raises `InvalidInput` for no regular expression or one that could match for long.

    A client sends it and every hop runs it, so what may backtrack without end is refused: a repeated group, more than 3 unbounded repeats,
    more than 8 repeats.
    """
    if not text:
        return None
    branches = [text] if "(" in text else text.split("|")
    repeats = [re.findall(r"(?<!\\)(?<!\()[*+{?]", branch) for branch in branches]
    endless = max(sum(sign != "?" for sign in signs) for signs in repeats)
    if len(text) > MAX_PATTERN or endless > 3 or max(map(len, repeats)) > 8 or re.search(r"(?<!\\)\)[*+{]", text):
        raise InvalidInput(f"target_executor {text[:80]!r}: this regular expression is too complex")
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidInput(f"target_executor {text[:80]!r}: not a regular expression: {error}") from None


@dataclass(frozen=True, slots=True)
class Plan:
    """Routing of one graph for one `target_executor`: the executors that run, and the steps behind each hop (polling not yet looked at)."""

    running: frozenset[str]
    after: Mapping[str, Steps]


def plan_for(graph: Graph, target_executor: str = "") -> Plan:
    """The plan, from the graph's own cache."""
    plan = graph.plans.get(target_executor)
    if plan is None:
        plan = _make_plan(graph, target_pattern(target_executor))
        if len(graph.plans) >= _PLANS:
            graph.plans.clear()
        graph.plans[target_executor] = plan
    return plan


def _after(graph: Graph, executor: str, target_executor: str) -> Steps:
    steps = plan_for(graph, target_executor).after.get(executor)
    if steps is None:
        graph.node(executor)
        raise InvalidInput(f"executor {executor!r} got a request with target_executor {target_executor!r}, which is not for it")
    return steps


def _polled(graph: Graph, endpoint: str, steps: Steps) -> Steps:
    """`steps` with WORK for ALL-polled executors turned into ALL."""
    return tuple(_fan_out(graph, endpoint, step) if step.kind is Kind.WORK else step for step in steps)


def _fan_out(graph: Graph, endpoint: str, step: Step) -> Step:
    node = graph.node(step.executor)
    return Step(Kind.ALL, node.name, "", node.shard_names, node.floating) if node.polls_all(endpoint) else step


def _work(node: Node) -> Step:
    return Step(Kind.WORK, node.name, floating=node.floating)


Arrivals = dict[str, str]  # branch (name in `needs`) -> hop whose output arrives on it, in the order of `needs`


def _make_plan(graph: Graph, pattern: re.Pattern[str] | None) -> Plan:
    running = frozenset(name for name in graph.names if pattern is None or pattern.match(name))
    tracer = _Tracer(running)
    arrivals = {node.name: tracer.visit(node) for node in graph.topological()}
    after: dict[str, list[Step]] = {name: [] for name in (GATEWAY, *graph.names) if tracer.origin[name] == name}
    leaves = tuple(node.name for node in graph.leaves) or (GATEWAY,)
    _deliver(Step(Kind.ANSWER, GATEWAY), tracer.merged(leaves), after)
    for name in reversed(arrivals):
        # A floating join that was passed over and has nothing behind it would be for nothing.
        if name in running or after.get(name):
            _deliver(_work(graph.node(name)), arrivals[name], after)
    order = {name: position for position, name in enumerate((*graph.names, GATEWAY))}
    return Plan(running, {name: tuple(sorted(steps, key=lambda step: order[step.executor])) for name, steps in after.items()})


def _deliver(step: Step, arrivals: Arrivals, after: dict[str, list[Step]]) -> None:
    """Append to each arriving hop its step towards one receiver: `step` itself, or a part when there are several."""
    branches = tuple(arrivals)
    kind = Kind.JOIN if step.kind is Kind.WORK else step.kind
    for branch, origin in arrivals.items():
        after[origin].append(step if len(branches) == 1 else Step(kind, step.executor, branch, branches, step.floating))


class _Tracer:
    """Follows data through a graph whose executors outside `running` are passed over; visit in topological order.

    `origin[name]` is the hop whose output comes out at `name`: itself when it runs or joins, else the one before it.
    """

    def __init__(self, running: frozenset[str]) -> None:
        self.origin: dict[str, str] = {GATEWAY: GATEWAY}
        self._running = running
        self._before: dict[str, frozenset[str]] = {GATEWAY: frozenset()}  # hop -> all hops its input came through

    def visit(self, node: Node) -> Arrivals:
        """The branches that arrive at `node`."""
        is_run = node.name in self._running
        arrivals = {need: self.origin[need] for need in node.needs} if is_run and node.no_reduce else self.merged(node.needs)
        is_hop = is_run or len(arrivals) > 1
        self.origin[node.name] = node.name if is_hop else next(iter(arrivals.values()))
        if is_hop:
            hops = frozenset(self.origin[need] for need in node.needs)
            self._before[node.name] = hops.union(*(self._before[hop] for hop in hops))
        return arrivals

    def merged(self, needs: tuple[str, ...]) -> Arrivals:
        """The branches of a merging join: without those passed over whose data another branch carries on."""
        kept = {need: self.origin[need] for need in needs}
        for need in reversed(needs):
            others = [origin for other, origin in kept.items() if other != need]
            if need not in self._running and need != GATEWAY and any(self._carries(origin, kept[need]) for origin in others):
                del kept[need]
        return kept

    def _carries(self, hop: str, earlier: str) -> bool:
        return hop == earlier or earlier in self._before[hop]
