"""`Flow` and `Deployment` in Python: names, needs, files, addresses, and what is handed to the runtime."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from streamflow.broker.errors import FlowError, RuntimeFailToStart, StreamflowError
from streamflow.config.ports import FIRST, LAST
from streamflow.config.spec import FlowSpec
from streamflow.deployment import Deployment
from streamflow.flow import Flow
from streamflow.orchestration import Runtime, StopEvent


class Encoder:
    """Stands for a user's executor class."""


def needs(flow: Flow) -> dict[str, tuple[str, ...]]:
    return {node.name: node.needs for node in flow.graph.nodes}


@pytest.mark.feature("FL-03", "FL-04")
def test_executors_follow_each_other_unless_told_otherwise() -> None:
    flow = Flow().add().add(name="b").add(needs="executor0").add(needs=["b", "executor2", "b"]).add(needs="gateway")
    assert needs(flow) == {
        "executor0": ("gateway",),
        "b": ("executor0",),
        "executor2": ("executor0",),
        "executor3": ("b", "executor2"),
        "executor4": ("gateway",),
    }
    assert len(flow) == 5 and len(Flow()) == 0 and bool(Flow())


@pytest.mark.feature("FL-03")
def test_default_names_avoid_names_that_are_taken() -> None:
    assert list(needs(Flow().add(name="executor1").add().add())) == ["executor1", "executor2", "executor3"]


@pytest.mark.feature("FL-05")
def test_joins_of_some_and_of_all_open_ends() -> None:
    flow = Flow().add(name="a").add(name="b", needs="gateway").add(name="c", needs="gateway").needs(["a", "b"], name="r1")
    flow.add(name="log", floating=True).needs_all()
    assert needs(flow)["r1"] == ("a", "b") and needs(flow)["joiner"] == ("c", "r1")
    flow.add(name="d", needs="gateway").needs_all(uses=Encoder)
    assert needs(flow)["joiner1"] == ("joiner", "d")


@pytest.mark.feature("FL-23")
def test_floating_executors_are_stepped_over_and_sunk_by_those_that_need_them() -> None:
    flow = Flow().add(name="a").add(name="log", floating=True).add(name="b").add(name="mail", needs="log", floating=True)
    assert needs(flow)["b"] == ("a",)
    assert [node.name for node in flow.graph.nodes if node.floating] == ["log", "mail"]
    flow.add(name="c", needs=["mail", "b"])
    assert not any(node.floating for node in flow.graph.nodes)
    assert needs(Flow().add(floating=True).add())["executor1"] == ("gateway",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "encoder", "replicas": "many"}, "executors[1] 'encoder': replicas: Input should be a valid integer"),
        ({"shrads": 2}, "executors[1]: shrads: unknown key; did you mean 'shards'?"),
        ({"needs": "fist"}, "executor 'executor1': needs 'fist', which does not exist; did you mean 'first'?"),
        ({"name": "first"}, "executor 'first': there are two of this name"),
        ({"name": "a.b"}, "executor 'a.b': use 1 to 64"),
        ({"uses": 5}, "executors[1]: uses: Input should be a valid string"),
        ({"when": {"x": 1}}, "executor 'executor1': when: x: expected {operator: value}"),
    ],
)
def test_a_wrong_executor_is_refused_and_not_added(arguments: dict[str, Any], message: str) -> None:
    flow = Flow().add(name="first")
    with pytest.raises(FlowError) as caught:
        flow.add(**arguments)
    assert message in str(caught.value)
    assert list(needs(flow)) == ["first"]


def test_a_refused_executor_leaves_floating_ones_as_they_were() -> None:
    flow = Flow().add(name="a").add(name="log", floating=True)
    with pytest.raises(FlowError):
        flow.add(name="a", needs="log")
    assert flow.graph.node("log").floating


def test_a_class_as_executor_reaches_the_spec_through_a_pipe() -> None:
    spec = Flow().add(uses=Encoder, uses_with={"a": 1}, replicas=2, env={"N": 3}).spec()
    again: FlowSpec = cloudpickle.loads(cloudpickle.dumps(spec))
    assert again == spec and spec.executors[0].uses is Encoder
    assert spec.executors[0].uses_with == {"a": 1} and spec.executors[0].env == {"N": "3"}
    assert spec.timeout_s == 600


@pytest.mark.feature("DP-09", "FL-09")
def test_ports_are_chosen_once_and_free() -> None:
    flow = Flow(protocol=["grpc", "http", "websocket"])
    ports = flow.port
    assert isinstance(ports, list) and len(set(ports)) == 3 and all(FIRST <= port <= LAST for port in ports)
    assert flow.port == ports and [each.port for each in flow.spec().gateway.listen] == ports
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("0.0.0.0", port))
    assert Flow(port=12345).port == 12345 and Flow().protocol == "grpc" and Flow().host == "0.0.0.0"
    assert flow.config_gateway(port=[1, 2, 3]).port == [1, 2, 3]


@pytest.mark.feature("FL-11", "GW-03")
def test_gateway_arguments_may_come_from_both_places() -> None:
    flow = Flow(protocol="http", prefetch=5).config_gateway(port=8080, cors=True).config_gateway(prefetch=7)
    gateway = flow.spec().gateway
    assert (gateway.prefetch, gateway.cors, flow.port, flow.protocol) == (7, True, 8080, "http")
    flow.expose_endpoint("/foo", summary="s", methods=["PUT"]).expose_endpoint("/bar", path="/baz")
    assert flow.spec().gateway.expose_endpoints == {"/foo": {"summary": "s", "methods": ["PUT"]}, "/bar": {"path": "/baz"}}
    with pytest.raises(FlowError, match="gateway: port: 2 for 1 protocols"):
        flow.config_gateway(port=[1, 2])
    assert flow.port == 8080


@pytest.mark.feature("FL-10", "DP-07")
def test_python_and_yaml_are_duals(tmp_path: Path) -> None:
    (tmp_path / "encoder.py").touch()
    (tmp_path / "flow.yml").write_text("jtype: Flow\nexecutors: [{name: old, uses: Encoder, py_modules: encoder.py}]\n")
    flow = Flow.load_config(str(tmp_path / "flow.yml"), name="shop", protocol=["grpc", "http"], port=[5, 6], env={"A": "0123"})
    flow.add(
        uses=Encoder, uses_with={"on": "yes", "n": "1e3", "x": ["a"], "protocol": ["one"]}, polling="ALL", shards=2, when={"a": {"$eq": 1}}
    )
    flow.add(uses={"jtype": "Third", "with": {"a": None}}, floating=True, queue={"max_deliver": 3}).config_gateway(cors=True)
    (tmp_path / "sub").mkdir()
    for path in (tmp_path / "again.yml", tmp_path / "sub" / "again.yml"):
        flow.save_config(path)
        again = Flow.load_config(path)
        assert again.graph == flow.graph and again.graph.version == flow.graph.version and again.name == "shop"
        old, new = flow.spec(), again.spec()
        assert new.gateway.listen == old.gateway.listen and new.gateway.cors
        assert [each.uses_with for each in new.executors] == [each.uses_with for each in old.executors]
        assert [each.py_modules for each in new.executors] == [each.py_modules for each in old.executors]
        assert [each.env for each in new.executors] == [each.env for each in old.executors]
        assert new.executors[1].uses == f"{Encoder.__module__}.Encoder" and new.executors[2].uses == {"jtype": "Third", "with": {"a": None}}


def test_what_yaml_cannot_hold_is_told(tmp_path: Path) -> None:
    class Local:
        pass

    with pytest.raises(FlowError, match="Local is defined within a function"):
        Flow().add(uses=Local).save_config(tmp_path / "x.yml")
    with pytest.raises(FlowError, match="cannot be written as YAML"):
        Flow().add(uses_with={"a": object()}).save_config(tmp_path / "x.yml")
    assert not (tmp_path / "x.yml").exists()


def test_a_deployment_is_a_flow_of_one(tmp_path: Path) -> None:
    deployment = Deployment(uses=Encoder, replicas=2, protocol="http", port=8080, env={"A": "1"}, uses_metas={"name": "m"})
    spec = deployment.spec()
    assert spec.graph.names == ("executor",) and spec.executors[0].replicas == 2 and spec.gateway.listen == (("http", 8080),)
    assert spec.executors[0].env == {"A": "1"} and spec.executors[0].uses_metas == {"name": "m"}
    deployment.save_config(tmp_path / "deployment.yml")
    again = Deployment.load_config(tmp_path / "deployment.yml")
    assert again.spec().graph == spec.graph and again.port == 8080 and again.name == deployment.name
    assert Deployment().spec().executors[0].uses is None
    external = Deployment(external=True, host="far", port=[1, 2], name="enc")
    assert [each.name for each in external.spec().executors] == ["enc"] and external.spec().graph.node("enc").hosts == ("far:1", "far:2")
    assert external.port not in (1, 2)
    with pytest.raises(FlowError, match="Deployment: replcas: unknown key; did you mean 'replicas'"):
        Deployment(replcas=2)


def test_a_flow_takes_in_a_deployment(tmp_path: Path) -> None:
    folder = tmp_path / "enc"
    folder.mkdir()
    for name in ("exec.yml", "helper.py"):
        (folder / name).touch()
    (folder / "deployment.yml").write_text(
        "jtype: Deployment\nname: enc\nuses: exec.yml\nwith: {port: 5, protocol: http, replicas: 2, env: {A: b}, py_modules: helper.py}\n"
    )
    flow = Flow(port=6).add(Deployment.load_config(folder / "deployment.yml"), replicas=3).add(Deployment(uses=Encoder, shards=2))
    flow.add(Deployment(uses=Encoder, name="last"), needs="enc", name="end")
    assert needs(flow) == {"enc": ("gateway",), "executor1": ("enc",), "end": ("enc",)} and flow.port == 6
    first, second, _ = flow.spec().executors
    assert (first.uses, first.py_modules) == (str(folder / "exec.yml"), (str(folder / "helper.py"),))
    assert (first.replicas, first.env, second.uses, second.shards) == (3, {"A": "b"}, Encoder, 2)
    with pytest.raises(FlowError, match=r"executors\[3\]: add\(\) takes a Deployment, or keywords"):
        flow.add(Encoder)  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("name", ["uses_before", "uses_after"])
def test_executors_of_a_head_are_refused_with_what_to_do_instead(name: str) -> None:
    for make in (lambda: Flow().add(**{name: "X"}), lambda: Deployment(**{name: "X"})):
        with pytest.raises(FlowError, match=f"{name}: there is no head here that would run it; add it as an executor of the flow"):
            make()


def test_a_flow_is_not_loaded_from_a_url() -> None:
    for url in ("https://host/flow.yml", "jinaai://user/Flow"):
        with pytest.raises(FlowError, match=f"{url}: definitions are not loaded from a URL: download the file and give its path"):
            Flow(uses=url)


def test_a_flow_without_a_name_on_a_broker_of_others_is_warned_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Flow(broker="nats://h:1", name="shop").spec()
    Flow().spec()
    assert caplog.messages == []
    Flow(broker="nats://h:1").spec()
    monkeypatch.setenv("STREAMFLOW_BROKER_URL", "nats://h:1")
    Flow().spec()
    assert caplog.messages == ["this flow has no name, so it is 'default' on a broker that others may use too: give it one"] * 2


@pytest.mark.feature("FL-18")
def test_a_flow_may_start_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "flow.yml").write_text("jtype: Flow\nwith: {port: 5}\nexecutors: [{name: a}]\n")
    flow = Flow(uses=str(tmp_path / "flow.yml"), port=6).add(name="b")
    assert needs(flow) == {"a": ("gateway",), "b": ("a",)} and flow.port == 6


# The runtime starts real processes and has tests of its own; here a record of what it was asked stands for it.


class Recorder:
    def __init__(self, spec: FlowSpec, log: list[str], problem: str = "") -> None:
        self.spec, self.log, self.problem = spec, log, problem
        self.running = False

    @property
    def gateway_addresses(self) -> dict[str, tuple[str, int]]:
        return {each.protocol: (self.spec.gateway.host, each.port) for each in self.spec.gateway.listen}

    def start(self, timeout_s: float | None = None) -> None:
        self.log.append("start")
        if self.problem:
            raise RuntimeFailToStart(self.problem)
        self.running = True

    def wait(self, stop_event: StopEvent | None = None) -> None:
        self.log.append("wait")
        if stop_event is None:
            raise KeyboardInterrupt
        assert stop_event.wait(5)

    def stop(self) -> None:
        self.log.append("stop")
        self.running = False


class RecordedFlow(Flow):
    problem = ""

    def _make_runtime(self, spec: FlowSpec) -> Runtime:
        self.log: list[str] = getattr(self, "log", [])
        return Recorder(spec, self.log, self.problem)


@pytest.mark.feature("DP-02", "FL-08")
def test_a_with_block_starts_and_closes_also_after_an_exception() -> None:
    flow = RecordedFlow(port=8080)
    with pytest.raises(ZeroDivisionError), flow as entered:
        assert entered is flow and flow.start() is flow and flow.address == ("grpc", "127.0.0.1", 8080)
        raise ZeroDivisionError
    flow.close()
    assert flow.log == ["start", "stop"] and not flow.is_flow_ready()


@pytest.mark.feature("DP-03")
def test_block_ends_with_its_event_or_ctrl_c() -> None:
    with RecordedFlow() as flow:
        event = threading.Event()
        event.set()
        flow.block(stop_event=event)
        flow.block()
    assert flow.log == ["start", "wait", "wait", "stop"]
    with pytest.raises(StreamflowError, match="is not started"):
        flow.block()


def test_a_flow_that_does_not_start_can_be_closed_and_started_again() -> None:
    flow = RecordedFlow()
    flow.problem = "executor 'a' did not come up"
    with pytest.raises(RuntimeFailToStart, match="executor 'a'"), flow:
        pass
    flow.problem = ""
    with flow:
        pass
    assert flow.log == ["start", "start", "stop"]


def test_a_definition_that_cannot_work_starts_nothing() -> None:
    flow = RecordedFlow(protocol=["grpc", "http"], port=[1])
    with pytest.raises(FlowError, match="gateway: port"), flow:
        pass
    assert not hasattr(flow, "log")
