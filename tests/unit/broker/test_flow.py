"""Graphs: what is refused, what survives the key-value bucket, what changes the version."""

import json
from dataclasses import replace
from typing import Any

import pytest

from streamflow.broker.errors import FlowError, NotFound
from streamflow.broker.flow import Graph, Node, Polling

pytestmark = pytest.mark.feature("FL-04")


def graph(*nodes: Node) -> Graph:
    return Graph("shop", nodes)


CHAIN = graph(Node("encoder"), Node("indexer", needs=("encoder",), shards=3, polling={"/search": Polling.ALL}))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([Node("a.b")], "executor 'a.b': use 1 to 64 letters"),
        ([Node("gateway")], "executor 'gateway': this name is reserved"),
        ([Node("dead")], "executor 'dead': this name is reserved"),
        ([Node("a"), Node("a")], "executor 'a': there are two of this name"),
        ([Node("a_part"), Node("a")], "executor 'a': too close"),
        ([Node("a"), Node("a_all")], "executor 'a_all': too close"),
        ([Node("encoder"), Node("b", needs=("encodr",))], "executor 'b': needs 'encodr', which does not exist; did you mean 'encoder'?"),
        ([Node("a", needs=())], "executor 'a': `needs` is empty"),
        ([Node("a"), Node("b", needs=("a", "a"))], "executor 'b': `needs` names an executor twice"),
        ([Node("a", needs=("b",)), Node("b", needs=("a",)), Node("c")], "executors 'a', 'b': `needs` go in a circle"),
        ([Node("a", needs=("a",))], "executors 'a': `needs` go in a circle"),
        ([Node("a", floating=True), Node("b", needs=("a",))], "executor 'b': needs 'a', which is floating"),
        ([Node("a"), Node("b"), Node("c", needs=("a", "b"), no_reduce=True, external=True)], "executor 'c': no_reduce"),
        ([Node("a"), Node("b"), Node("c", needs=("a", "b"), no_reduce=True, hosts=("h:1",))], "executor 'c': no_reduce"),
        ([Node("a", external_flow="other")], "executor 'a': external_flow"),
        ([Node("a", shards=0)], "executor 'a': shards is 0"),
        ([Node("a", replicas=-1)], "executor 'a': replicas is -1"),
        ([Node("a", replicas=True)], "executor 'a': replicas is True"),
        ([Node("a", ack_wait_s=0.0)], "executor 'a': ack_wait_s"),
        ([Node("a", polling={"search": Polling.ALL})], "executor 'a': polling of 'search': an endpoint starts with '/'"),
        ([Node("a", polling={"*": "SOME"})], "executor 'a': polling of '*' is 'SOME': use ANY or ALL"),  # type: ignore[dict-item]
        ([Node("a", when={"x": {"$like": 1}})], "executor 'a': when: x: $like: unknown operator"),
    ],
)
def test_a_definition_that_cannot_work_is_refused_by_name(nodes: list[Node], message: str) -> None:
    with pytest.raises(FlowError) as caught:
        graph(*nodes).validate()
    assert message in str(caught.value)


def test_a_flow_name_must_be_a_token() -> None:
    with pytest.raises(FlowError, match=r"flow 'my flow\.\*'"):
        Graph("my flow.*").validate()


@pytest.mark.feature("FL-01")
def test_an_empty_flow_and_any_order_of_needs_are_fine() -> None:
    Graph("empty").validate()
    late = graph(Node("join", needs=("a", "b")), Node("a"), Node("b", needs=("a",)))
    late.validate()
    assert [node.name for node in late.topological()] == ["a", "b", "join"]


def test_leaves_and_roots() -> None:
    flow = graph(Node("a"), Node("b"), Node("c", needs=("a",)), Node("log", needs=("c",), floating=True))
    assert [node.name for node in flow.roots] == ["a", "b"]
    assert [node.name for node in flow.leaves] == ["b", "c"]


def test_an_unknown_executor_is_not_found_with_a_hint() -> None:
    assert CHAIN.node("encoder").name == "encoder" and "encoder" in CHAIN and "x" not in CHAIN
    with pytest.raises(NotFound, match="flow 'shop' has no executor 'indexr'; did you mean 'indexer'?"):
        CHAIN.node("indexr")


FULL = Node(
    "full",
    needs=("encoder", "gateway"),
    replicas=2,
    shards=2,
    polling={"/x": Polling.ALL, "*": Polling.ANY},
    when={"tags__n": {"$gt": 1}},
    external=True,
    hosts=("h:4222",),
    external_flow="other",
    external_executor="their",
    allow_partial=True,
    retries=3,
    retry_on=("OSError",),
    max_deliver=7,
    ack_wait_s=2.5,
    timeout_ready_ms=-1,
    options={"uses": object(), "env": {"KEY": "secret"}},
)


def test_a_graph_survives_json_without_its_options() -> None:
    before = graph(*CHAIN.nodes, FULL)
    text = json.dumps(before.to_dict())
    after = Graph.from_dict(json.loads(text))
    assert after == before and after.version == before.version and hash(after) == hash(before)
    assert "secret" not in text and after.node("full").options == {}
    assert after.node("full").polling["/x"] is Polling.ALL


@pytest.mark.parametrize("raw", [{}, {"flow": "a"}, {"flow": "a", "nodes": [{}]}, {"flow": "a", "nodes": 3}, {"flow": 3, "nodes": []}])
def test_what_is_no_graph_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(FlowError):
        Graph.from_dict(raw)


def test_a_graph_whose_rules_are_unknown_here_is_refused() -> None:
    raw = CHAIN.to_dict()
    raw["nodes"][0]["teleport"] = True
    assert Graph.from_dict(raw) == CHAIN  # did not change the version: not a routing matter
    with pytest.raises(FlowError, match="another release"):
        Graph.from_dict(raw | {"version": "0" * 16})


@pytest.mark.parametrize(
    ("change", "is_other"),
    [
        ({"needs": ("gateway",)}, True),
        ({"shards": 4}, True),
        ({"polling": {}}, True),
        ({"when": {"a": {"$eq": 1}}}, True),
        ({"floating": True}, True),
        ({"no_reduce": True}, True),
        ({"external": True}, True),
        ({"replicas": 9}, False),
        ({"retries": 3}, False),
        ({"max_deliver": 9}, False),
        ({"timeout_ready_ms": 5}, False),
        ({"options": {"uses": "x"}}, False),
    ],
)
def test_the_version_changes_with_the_routing_only(change: dict[str, Any], is_other: bool) -> None:
    changed = graph(CHAIN.nodes[0], replace(CHAIN.nodes[1], **change))
    assert (changed.version != CHAIN.version) is is_other
    assert len(changed.version) == 16 and int(changed.version, 16) >= 0


@pytest.mark.feature("SC-03", "SC-04")
def test_polling_defaults_hold_under_what_the_user_sets() -> None:
    unset, everywhere = Node("a", shards=2), Node("a", shards=2, polling={"*": Polling.ALL})
    table = Node("a", shards=2, polling={"/custom": Polling.ALL, "/search": Polling.ANY, "*": Polling.ANY})
    assert [unset.polls_all(each) for each in ("/index", "/search", "/other")] == [False, True, False]
    assert [everywhere.polls_all(each) for each in ("/index", "/search", "/other")] == [False, True, True]
    assert [table.polls_all(each) for each in ("/index", "/search", "/custom", "/other")] == [False, False, True, False]
    assert not Node("a", polling={"*": Polling.ALL}).polls_all("/x")  # one shard: nothing to fan out to
