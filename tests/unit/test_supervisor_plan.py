"""From a flow to its processes: settings, environments, what travels and what does not."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from streamflow import gpus
from streamflow.broker.errors import FlowError, StreamflowError
from streamflow.broker.flow import Graph, Node
from streamflow.config.spec import ExecutorSpec, FlowSpec, GatewaySpec, ListenAt
from streamflow.gateways.fastapi import FastAPIBaseGateway
from streamflow.members import Role
from streamflow.pickling import loads
from streamflow.plan import environment, make_plan, prepare
from streamflow.ports import HeldPorts
from streamflow.sealing import seal
from streamflow.spawn import Child

URL = "nats://127.0.0.1:4999"


class Mine:
    """Any class at all: nothing here looks inside."""


def spec(*executors: ExecutorSpec, gateway: GatewaySpec | None = None, floating: str = "", **more: Any) -> FlowSpec:
    graph = Graph("shop", tuple(Node(each.name, floating=each.name == floating, options={"uses": each.uses}) for each in executors))
    return FlowSpec(graph, executors, gateway or GatewaySpec((ListenAt("http", 8080),)), **more)


def children(flow: FlowSpec, role: Role = Role.WORKER) -> list[Child]:
    plan = make_plan(pickle.loads(pickle.dumps(seal(flow))), URL)
    return [place.child for place in plan.places if place.role is role]


def settings(child: Child) -> Any:
    return child.settings


def test_the_workers_share_a_file_with_one_companion() -> None:
    flow = pickle.loads(pickle.dumps(seal(spec(ExecutorSpec("a", replicas=2), ExecutorSpec("b")))))
    places = make_plan(flow, URL, leases=77).places
    [companion] = [place.child for place in places if place.role is Role.COMPANION]
    workers = [place.child for place in places if place.role is Role.WORKER]
    assert companion.inherit == (77,) and companion.options == {"leases": 77}
    assert [(child.inherit, child.options["leases"]) for child in workers] == [((77,), 77)] * 3
    assert not [child for child in children(spec(ExecutorSpec("a"))) if "leases" in child.options], "each forks its own"


@pytest.mark.feature("EX-34", "SC-02")
def test_each_replica_of_each_shard_is_a_process() -> None:
    flow = spec(ExecutorSpec("plain", replicas=2), ExecutorSpec("index", shards=2, replicas=2))

    found = [(child.name, settings(child).name, settings(child).shard, settings(child).replica) for child in children(flow)]

    assert found == [
        ("plain/rep-0", "plain", -1, 0),
        ("plain/rep-1", "plain", -1, 1),
        ("index/shard-0/rep-0", "index", 0, 0),
        ("index/shard-0/rep-1", "index", 0, 1),
        ("index/shard-1/rep-0", "index", 1, 0),
        ("index/shard-1/rep-1", "index", 1, 1),
    ]


def test_a_worker_gets_what_the_file_says() -> None:
    executor = ExecutorSpec(
        "encoder",
        "/x/exec.yml",
        {"dim": 3},
        {"description": "d"},
        {"/a": "b"},
        {"/a": {"timeout": 5}},
        ("/x/m.py",),
        workspace="/w",
        folder=Path("/x"),
    )

    flow = spec(executor)
    (child,) = children(flow)

    given = settings(child)
    assert (given.flow, given.broker_url, given.workspace, given.py_modules) == ("shop", URL, "/w", ["/x/m.py"])
    assert (given.uses_with, given.uses_requests, given.uses_dynamic_batching) == ({"dim": 3}, {"/a": "b"}, {"/a": {"timeout": 5}})
    assert child.options == {"base_dir": "/x", "uses": "/x/exec.yml", "flow_version": flow.graph.version}
    assert child.sealed == b""


def test_classes_and_objects_are_opened_by_the_worker_only() -> None:
    flow = spec(ExecutorSpec("encoder", Mine, {"kind": Mine, "dim": 3}))

    sealed = seal(flow)
    (child,) = children(flow)

    assert b"Mine" not in pickle.dumps((sealed.graph, sealed.executors, sealed.gateway))
    opened = loads(child.sealed)
    assert (opened["uses"].__name__, opened["uses_with"]["dim"], opened["uses_with"]["kind"]) == ("Mine", 3, opened["uses"])
    assert "uses" not in child.options


def test_what_cannot_travel_is_told_with_its_executor() -> None:
    with pytest.raises(StreamflowError, match="executor 'encoder': its class or arguments cannot be sent to its process: .*lock"):
        seal(spec(ExecutorSpec("encoder", "m.C", {"lock": threading.Lock()})))


@pytest.mark.feature("EX-40")
def test_concurrency_is_the_users_or_the_workers_default() -> None:
    found = [settings(child).concurrency for child in children(spec(ExecutorSpec("a"), ExecutorSpec("b", concurrency=1)))]

    assert found == [64, 1]


@pytest.mark.feature("EX-27")
def test_search_paths_reach_the_worker() -> None:
    (child,) = children(spec(ExecutorSpec("a", "exec.yml", extra_search_paths=("/lib",), folder=Path("/x"))))

    assert child.options["extra_search_paths"] == ("/lib",) and child.options["base_dir"] == "/x"


def test_options_that_are_settings_reach_the_worker() -> None:
    (child,) = children(spec(ExecutorSpec("encoder", options={"exit_on_exceptions": ["OSError"], "volumes": ["/a"]})))

    assert settings(child).exit_on_exceptions == ["OSError"]


def test_a_gateway_gets_what_the_file_says() -> None:
    gateway = GatewaySpec(
        (ListenAt("http", 8080), ListenAt("grpc", 9090)),
        "127.0.0.1",
        10,
        250.0,
        "Shop",
        cors=True,
        ssl_certfile="/c.pem",
        no_debug_endpoints=True,
    )

    (child,) = children(spec(ExecutorSpec("a"), gateway=gateway), Role.GATEWAY)

    given = settings(child)
    assert [(each.protocol, each.host, each.port) for each in given.listen] == [("http", "127.0.0.1", 8080), ("grpc", "127.0.0.1", 9090)]
    assert (given.flow, given.prefetch, given.timeout_send, given.title, given.cors, given.ssl_certfile) == (
        "shop",
        10,
        250.0,
        "Shop",
        True,
        "/c.pem",
    )
    assert given.no_debug_endpoints
    assert child.options == {"base_dir": ".", "py_modules": (), "uses": None, "uses_with": {}, "check_schemas": False}


@pytest.mark.feature("DP-11")
def test_times_to_become_ready_are_seconds_and_may_be_endless() -> None:
    flow = spec(ExecutorSpec("a", timeout_ready_ms=1500), ExecutorSpec("b", timeout_ready_ms=-1))

    plan = make_plan(seal(flow), URL)

    assert [place.ready_s for place in plan.places if place.role is Role.WORKER] == [1.5, None]


def test_only_a_flow_with_floating_executors_waits_for_its_queues_before_it_ends() -> None:
    executors = (ExecutorSpec("a"), ExecutorSpec("b"))

    assert make_plan(seal(spec(*executors)), URL).settle is None
    assert make_plan(seal(spec(*executors, floating="b")), URL).settle is not None


def test_executors_that_do_not_fit_are_refused_when_their_workers_have_said_what_they_offer() -> None:
    nodes = (Node("a"), Node("b", ("a",)))
    flow = FlowSpec(Graph("shop", nodes), (ExecutorSpec("a"), ExecutorSpec("b")), GatewaySpec((ListenAt("http", 8080),)))
    check = make_plan(seal(flow), URL).check
    text, number = ({"properties": {"x": {"type": kind}}} for kind in ("string", "number"))
    assert check is not None

    check({"a": [{"name": "/e", "response_schema": text}], "b": [{"name": "/e", "request_schema": text}]})
    with pytest.raises(FlowError, match="a -> b, /e: field 'x': a gives string, b takes number"):
        check({"a": [{"name": "/e", "response_schema": text}], "b": [{"name": "/e", "request_schema": number}]})


@pytest.mark.feature("EV-01")
def test_the_broker_is_the_files_then_the_environments_then_an_own_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = prepare(seal(spec(store=tmp_path / "data")))
    assert own.broker is not None
    monkeypatch.setenv("STREAMFLOW_BROKER_URL", "nats://env:1")

    assert (prepare(seal(spec())).broker, prepare(seal(spec())).broker_url) == (None, "nats://env:1")
    assert prepare(seal(spec(broker_url="nats://file:1"))).broker_url == "nats://file:1"


@pytest.mark.feature("SC-07")
@pytest.mark.parametrize(
    ("value", "count", "expected"),
    [
        ("RR", 3, ["0", "1", "2", "0", "1"]),
        ("RR0:2", 3, ["0", "1", "0", "1", "0"]),
        ("RR1:", 3, ["1", "2", "1", "2", "1"]),
        ("RR-2:", 3, ["1", "2", "1", "2", "1"]),
        ("RR1,3", 3, ["1", "3", "1", "3", "1"]),
        ("RRGPU-a,GPU-b", 2, ["GPU-a", "GPU-b", "GPU-a", "GPU-b", "GPU-a"]),
        ("RR", 0, [None] * 5),
        ("0,1", 8, ["0,1"] * 5),
        ("", 8, [""] * 5),
    ],
)
def test_t64_cards_are_dealt_out_to_replicas(value: str, count: int, expected: list[str | None]) -> None:
    assert [gpus.assign(value, index, count) for index in range(5)] == expected


def test_a_slice_without_cards_is_an_error() -> None:
    with pytest.raises(FlowError, match="CUDA_VISIBLE_DEVICES=RR4:6: no such device, there are 2"):
        gpus.assign("RR4:6", 0, 2)


@pytest.mark.feature("SC-07")
@pytest.mark.parametrize("given", [{"CUDA_VISIBLE_DEVICES": "RR7,8"}, {}])
def test_cards_come_from_the_executors_environment_or_from_ours(monkeypatch: pytest.MonkeyPatch, given: Mapping[str, str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "RR7,8")

    assert [environment({"A": "b", **given}, index) for index in range(2)] == [
        {"A": "b", "CUDA_VISIBLE_DEVICES": "7"},
        {"A": "b", "CUDA_VISIBLE_DEVICES": "8"},
    ]


def test_every_shards_replicas_get_cards_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = spec(ExecutorSpec("index", shards=2, replicas=2, env={"CUDA_VISIBLE_DEVICES": "RR0,1,2,3"}))

    assert [child.env["CUDA_VISIBLE_DEVICES"] for child in children(flow)] == ["0", "1", "2", "3"]


class Web(FastAPIBaseGateway):
    pass


class OwnServer(FastAPIBaseGateway):
    async def run_server(self) -> None: ...


@pytest.mark.parametrize(
    ("uses", "protocol", "handed_over"),
    [
        (None, "grpc", True),
        (Web, "http", True),
        (Web, "grpc", False),
        (OwnServer, "http", False),
        (Mine, "http", False),
        ("Web", "http", False),
    ],
)
def test_a_gateway_that_leaves_its_port_to_us_hands_it_over(uses: Any, protocol: Any, handed_over: bool) -> None:
    sealed = seal(spec(gateway=GatewaySpec((ListenAt(protocol, 0),), "127.0.0.1", uses=uses)))
    ports = HeldPorts()
    (place,) = (each for each in make_plan(sealed, URL, ports).places if each.role is Role.GATEWAY)
    ports.close()
    assert place.handover is handed_over
