"""Flow, deployment and executor files: what Jina's forms become, and how mistakes are told."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from streamflow.broker.errors import FlowError
from streamflow.broker.flow import Polling
from streamflow.config.load import load_deployment, load_executor_file, load_flow
from streamflow.config.schema import config_schema
from streamflow.config.spec import FlowSpec, ListenAt
from streamflow.flow import Flow

FULL = """\
jtype: Flow
version: '1'
with:
  env: {LEVEL: 1, BOTH: flow}
  workspace: ./space
  prefetch: 10
broker:
  url: nats://broker:4222
gateway:
  protocol: [grpc, HTTP]
  port: [12345, 12346]
  timeout_send: 500
  cors: true
  expose_endpoints:
    /foo: {summary: my endpoint, methods: [PUT]}
executors:
- name: first
  uses:
    jtype: MyExec
    py_modules: [executor.py]
    with: {a: 1}
  replicas: 2
  shards: 3
  polling: {/custom: all, '*': any}
  env: {BOTH: own}
- name: second
  uses: indexer.yml
  when: {tags__key: {$eq: 5}}
  retries: 2
  retry_on: ConnectionError
  queue: {max_deliver: 7, ack_wait: 2.5}
- uses: docker://encoder
  needs: [first, second]
  disable_reduce: true
  timeout_ready: -1
  dynamic_batching: {/foo: {preferred_batch_size: 4}}
- name: far
  external: true
  host: [a, 'b:9']
  port: 7
  floating: true
"""


def spec(text: str, tmp_path: Path) -> FlowSpec:
    (tmp_path / "flow.yml").write_text(text)
    return load_flow(tmp_path / "flow.yml").spec([1, 2])


@pytest.mark.feature("YM-01", "FL-18")
def test_a_flow_file_in_jinas_form(tmp_path: Path) -> None:
    for name in ("indexer.yml", "executor.py"):
        (tmp_path / name).touch()
    flow = spec(FULL, tmp_path)
    first, second, third, bridge = flow.executors
    assert flow.graph.names == ("first", "second", "executor2", "far") and flow.broker_url == "nats://broker:4222"
    assert [node.needs for node in flow.graph.nodes] == [("gateway",), ("first",), ("first", "second"), ("executor2",)]
    assert first.uses == {"jtype": "MyExec", "py_modules": [str(tmp_path / "executor.py")], "with": {"a": 1}}
    assert (first.replicas, first.shards, first.env, first.workspace) == (2, 3, {"LEVEL": "1", "BOTH": "own"}, "./space")
    assert flow.graph.node("first").polling == {"/custom": Polling.ALL, "*": Polling.ANY}
    assert second.uses == str(tmp_path / "indexer.yml") and second.folder == tmp_path
    node = flow.graph.node("second")
    assert (node.when, node.retries, node.retry_on, node.max_deliver, node.ack_wait_s) == (
        {"tags__key": {"$eq": 5}},
        2,
        ("ConnectionError",),
        7,
        2.5,
    )
    assert (
        third.uses == "docker://encoder"
        and third.timeout_ready_ms == -1
        and third.uses_dynamic_batching == {"/foo": {"preferred_batch_size": 4}}
    )
    assert flow.graph.node("executor2").no_reduce and flow.timeout_s is None
    assert flow.graph.node("far").hosts == ("a:7", "b:9") and flow.graph.node("far").floating and not flow.graph.node("far").external
    assert (bridge.name, bridge.uses, bridge.uses_with) == ("far", "streamflow.bridge.Bridge", {"addresses": ["a:7", "b:9"]})
    gateway = flow.gateway
    assert gateway.listen == (ListenAt("grpc", 1), ListenAt("http", 2)) and gateway.host == "0.0.0.0"
    assert (gateway.prefetch, gateway.timeout_send_ms, gateway.cors, gateway.env) == (10, 500, True, {"LEVEL": "1", "BOTH": "flow"})
    assert gateway.expose_endpoints == {"/foo": {"summary": "my endpoint", "methods": ["PUT"]}}
    assert flow.sources == (tmp_path / "flow.yml",)


@pytest.mark.feature("FL-02")
def test_gateway_matters_do_not_reach_executors_and_the_other_way_round(tmp_path: Path) -> None:
    flow = spec("jtype: Flow\nwith: {port: 5, protocol: http, cors: true, replicas: 2, tracing: true}\nexecutors: [{name: a}]", tmp_path)
    assert flow.executors[0].replicas == 2 and flow.executors[0].options == {"tracing": True}
    assert flow.gateway.options == {"tracing": True} and flow.gateway.listen == (ListenAt("http", 1),)


MISTAKES = """\
jtype: Flow
executors:
- name: a
- name: b
  replicas: two
  shrads: 3
  uses:
    jtype: X
    wth: {}
  polling: SOME
gateway:
  prot: 80
  protocol: htp
with:
  cors: maybe
"""


def test_every_mistake_is_told_with_file_line_and_what_was_meant() -> None:
    with pytest.raises(FlowError) as caught:
        load_flow(MISTAKES)
    lines = set(str(caught.value).splitlines())
    assert lines == {
        "inline YAML:5: executors[1].replicas: Input should be a valid integer, unable to parse string as an integer",
        "inline YAML:6: executors[1].shrads: unknown key; did you mean 'shards'?",
        "inline YAML:9: executors[1].uses.wth: unknown key; did you mean 'with'?",
        "inline YAML:10: executors[1].polling: Input should be 'ANY' or 'ALL'",
        "inline YAML:12: gateway.prot: unknown key; did you mean 'port'?",
        "inline YAML:13: gateway.protocol[0]: Input should be 'grpc', 'http' or 'websocket'",
        "inline YAML:15: with.cors: Input should be a valid boolean, unable to interpret input",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!Reader\nmetas: {name: x}", "inline YAML:1: this file is of the executor or gateway class Reader, not a Flow: give it as `uses`"),
        (
            "jtype: Deployment\nuses: X",
            "inline YAML:1: this file is a Deployment, not a Flow: use Deployment.load_config, or `streamflow deployment`",
        ),
        ("- a\n- b", "inline YAML:1: expected a mapping with `jtype`, got list"),
        ("jtype: Flow\nexecutors:\n- name: a\n- name: a\n", "inline YAML:4: executors[1]: executor 'a': there are two of this name"),
        ("jtype: Flow\nexecutors:\n- name: a b\n", "inline YAML:3: executors[0]: executor 'a b': use 1 to 64"),
        ("jtype: Flow\nexecutors:\n- name: a\n- name: b\n  needs: c\n", "inline YAML:4: executors[1]: executor 'b': needs 'c', which"),
        ("jtype: Flow\nexecutors:\n- name: a\n  when: {x: {$like: 1}}\n", "inline YAML:3: executors[0]: executor 'a': when: x: $like"),
        ("jtype: Flow\nexecutors:\n- replicas: true\n", "inline YAML:3: executors[0].replicas: Input should be a number, not"),
        ("jtype: Flow\nexecutors: [x]\n", "inline YAML:2: executors[0]: Input should be a valid dictionary"),
        ("jtype: Flow\nwith: {uses: other.yml}", "inline YAML:2: with.uses: a flow file cannot start from another one"),
    ],
)
def test_files_that_cannot_work_are_refused(text: str, message: str) -> None:
    with pytest.raises(FlowError) as caught:
        load_flow(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jtype: Flow\ngateway: {protocol: [grpc, http], port: [1]}", "gateway: port: 1 for 2 protocols (grpc, http)"),
        ("jtype: Flow\ngateway: {protocol: [http, http]}", "gateway: protocol: http, http: each protocol once"),
        ("jtype: Flow\nexecutors:\n- uses: no.yml\n", "inline YAML:3: executors[0]: executor 'executor0': uses: no file 'no.yml' in "),
        ("jtype: Flow\nexecutors:\n- external: true\n  host: [a, b]\n  port: [1, 2, 3]\n", "executor 'executor0': 2 hosts and 3 ports"),
    ],
)
def test_what_only_shows_when_it_is_put_together(text: str, message: str) -> None:
    with pytest.raises(FlowError) as caught:
        Flow.load_config(text).spec()
    assert message in str(caught.value)


def test_arguments_without_meaning_here_load_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    text = "jtype: Flow\njcloud: {version: 3}\nexecutors:\n- name: a\n  peer_ports: {'0': [1]}\n  gpus: all\n  volumes: x:/y\n"
    text += "gateway: {proxy: true}\n"
    with caplog.at_level(logging.WARNING):
        definition = load_flow(text)
    messages = [record.getMessage() for record in caplog.records]
    assert "inline YAML:5: executors[0].peer_ports: accepted for Jina's files, has no effect" in messages
    assert "inline YAML:6: executors[0].gpus: kept for `streamflow export`, has no effect on local processes" in messages
    assert len(messages) == 5
    assert definition.spec([1]).executors[0].options["volumes"] == ["x:/y"]


@pytest.mark.parametrize("name", ["tracing", "metrics", "monitoring", "allow_concurrent", "docker_kwargs", "force_update"])
def test_what_nothing_reads_is_not_accepted_in_silence(name: str, caplog: pytest.LogCaptureFixture) -> None:
    value = "{a: b}" if name == "docker_kwargs" else "true"
    load_flow(f"jtype: Flow\nexecutors:\n- name: a\n  {name}: {value}\n")
    assert f"executors[0].{name}: accepted for Jina's files, has no effect" in caplog.text


@pytest.mark.feature("YM-02", "SC-09")
@pytest.mark.parametrize(
    "text",
    [
        "jtype: Deployment\nwith: {name: enc, uses: X, replicas: 3, port: 5, protocol: http}",
        "jtype: Deployment\nname: enc\nuses: X\nreplicas: 3\nport: 5\nprotocol: http",
        "!Deployment\nname: enc\nwith: {uses: X, replicas: 9, port: 5, protocol: http}\nreplicas: 3",
        '{"jtype": "Deployment", "with": {"name": "enc", "uses": "X", "replicas": 3}, "gateway": {"port": 5, "protocol": "http"}}',
    ],
)
def test_a_deployment_takes_arguments_in_both_places(text: str) -> None:
    made = load_deployment(text).spec([5])
    assert made.name == "enc" and [each.name for each in made.executors] == ["enc"]
    assert (made.executors[0].uses, made.executors[0].replicas, made.gateway.listen) == ("X", 3, (ListenAt("http", 5),))


@pytest.mark.feature("DP-12")
def test_an_external_deployment_keeps_its_address_and_starts_a_bridge_to_it() -> None:
    made = load_deployment("jtype: Deployment\nwith: {external: true, host: 'far:7', name: enc, tls: true}").spec([5])
    assert made.graph.node("enc").hosts == ("far:7",) and made.gateway.host == "0.0.0.0"
    assert [each.uses_with for each in made.executors] == [{"addresses": ["far:7"], "tls": True}]


@pytest.mark.feature("FL-33", "SC-08")
@pytest.mark.parametrize(
    ("arguments", "addresses"),
    [
        ("host: h, port: 7", ["h:7"]),
        ("host: 'h:7'", ["h:7"]),
        ("host: 'grpcs://h:7'", ["grpcs://h:7"]),
        ("host: 'https://h', port: 7", ["https://h:7"]),
        ("host: h, port: [7, 8]", ["h:7", "h:8"]),
        ("host: [h, i], port: 7", ["h:7", "i:7"]),
        ("host: [h, 'i:9'], port: [7, 8]", ["h:7", "i:9"]),
        ("port: 7", ["localhost:7"]),
    ],
)
def test_the_addresses_of_an_external_executor(arguments: str, addresses: list[str]) -> None:
    text = f"jtype: Flow\nexecutors: [{{name: far, external: true, retries: 4, protocol: http, grpc_metadata: {{a: b}}, {arguments}}}]"
    (bridge,) = load_flow(text).spec([5]).executors
    assert bridge.uses_with == {"addresses": addresses, "protocol": "http", "retries": 4, "metadata": {"a": "b"}}


def test_an_external_executor_without_an_address_is_somebody_elses_on_the_same_broker() -> None:
    text = "jtype: Flow\nexecutors: [{name: far, external: true, external_flow: other, external_executor: enc}]"
    made = load_flow(text).spec([5])
    assert made.executors == () and made.graph.node("far").external and made.graph.node("far").external_flow == "other"


def test_address_and_name_contradict_each_other() -> None:
    with pytest.raises(FlowError, match="inline YAML:2: executors\\[0\\]: executor 'far': external_flow: host and port name a gateway"):
        load_flow("jtype: Flow\nexecutors: [{name: far, external: true, host: h, external_flow: other}]")


def test_host_and_protocol_of_an_executor_that_runs_here_are_told_to_do_nothing(caplog: pytest.LogCaptureFixture) -> None:
    load_flow("jtype: Flow\nexecutors: [{name: a, host: far, protocol: http}, {name: b, host: 0.0.0.0, port: 5}]").spec([1])
    assert [text.split(":")[0] for text in caplog.messages] == ["executor 'a'", "executor 'a'"]


@pytest.mark.feature("YM-05", "FL-10")
def test_context_and_overrides() -> None:
    text = "jtype: Flow\nwith: {port: 5}\nexecutors:\n- replicas: ${{ CONTEXT.n }}\n"
    definition = load_flow(text, context={"n": 4}, overrides={"port": 6, "workspace": "w"})
    assert definition.complete_gateway()["port"] == [6]
    assert definition.spec([6]).executors[0].replicas == 4 and definition.spec([6]).executors[0].workspace == "w"
    with pytest.raises(FlowError, match="Flow: prt: unknown key; did you mean 'port'?"):
        load_flow(text, context={"n": 4}, overrides={"prt": 6})


def test_a_mapping_is_as_good_as_a_file() -> None:
    assert load_flow({"jtype": "Flow", "executors": [{"name": "a", "uses": dict}]}).spec([1]).executors[0].uses is dict
    with pytest.raises(FlowError, match=r"dict: executors\[0\]\.replicas"):
        load_flow({"executors": [{"replicas": "x"}]})


@pytest.mark.feature("YM-03", "EX-25")
def test_an_executor_file_is_checked() -> None:
    text = (
        "jtype: MyExec\nwith: {a: 1}\nmetas: {name: x}\npy_modules: executor.py\nuses_dynamic_batching: {/a: {preferred_batch_size: 2}}\n"
    )
    assert load_executor_file(text).arguments == {"a": 1} and load_executor_file(text).py_modules == ["executor.py"]
    with pytest.raises(FlowError, match="inline YAML:1: jtype: Field required"):
        load_executor_file("with: {a: 1}\n")


@pytest.mark.feature("YM-08")
def test_the_schema_for_editors_is_json_and_knows_the_keys() -> None:
    schema: dict[str, Any] = json.loads(json.dumps(config_schema()))
    definitions = schema["$defs"]
    assert "with" in definitions["FlowFile"]["properties"] and definitions["FlowFile"]["additionalProperties"] is False
    assert definitions["ExecutorArguments"]["properties"]["jcloud"]["deprecated"] is True
    assert {"replicas", "uses", "when"} <= definitions["ExecutorArguments"]["properties"].keys()
