"""Files in the shapes that Jina's users have: each loads, or is refused for a reason that is said.

The structure and the key names are facts about Jina 3; names, texts and values are our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamflow.broker.errors import FlowError
from streamflow.config.load import load_deployment, load_executor_file, load_flow
from streamflow.deployment import Deployment
from streamflow.flow import Flow
from streamflow.workers.loader import load_executor

IMAGE = "jinaai+docker://someone/Reader"

FLOWS: dict[str, Any] = {
    "nothing but its kind": {},
    "port and protocol at the top": {
        "with": {"port": 5000, "protocol": "http"},
        "executors": [{"name": "a", "uses": IMAGE, "replicas": 2}],
    },
    "an empty with": {"with": {}, "executors": [{"name": "a", "port": 40001, "env": {"LEVEL": "DEBUG", "CUDA_VISIBLE_DEVICES": 1}}]},
    "names only": {"executors": [{"name": "readerOne"}, {"name": "writerTwo"}]},
    "a class and its file": {"executors": [{"name": "a", "uses": "Reader", "py_modules": "reader.py"}]},
    "executors without names": {"with": {"port": 5000}, "executors": [{"uses": "Reader", "replicas": 3, "py_modules": "all.py"}] * 2},
    "uses in three forms": {
        "version": "1",
        "with": {"protocol": "http"},
        "executors": [
            {"name": "a", "uses": {"jtype": "Reader", "py_modules": ["reader.py"]}},
            {"name": "b", "uses": "writer.yml", "workspace": "/data/space"},
            {"name": "c", "uses": "Writer"},
        ],
    },
    "a condition": {"executors": [{"name": "a", "uses": "Reader", "when": {"tags__size": {"$eq": 3}}}]},
    "replicas of the gateway": {"gateway": {"replicas": 2}, "executors": [{"name": "a"}]},
    "one protocol": {"gateway": {"protocol": "websocket"}},
    "several protocols": {"gateway": {"protocol": ["grpc", "http", "websocket"]}},
    "log config": {"gateway": {"log_config": "./log.yml"}, "with": {"log_config": "./log.yml"}},
    "prefetch": {"with": {"protocol": "http", "prefetch": 5}},
    "reload": {"with": {"port": 5000, "reload": True}, "executors": [{"name": "a", "uses": "Reader"}]},
    "tracing under its other name": {
        "with": {"tracing": True, "tracing_exporter_host": "localhost", "tracing_exporter_port": 4317},
        "executors": [{"uses": "jinaai://someone/Reader"}],
    },
    "metrics": {"with": {"metrics": True, "metrics_exporter_host": "http://localhost", "metrics_exporter_port": 4317, "monitoring": True}},
    "requirements of the hub": {"executors": [{"uses": "jinaai://someone/Reader", "install_requirements": True, "replicas": 5}]},
    "secrets": {
        "with": {"protocol": "http"},
        "executors": [
            {
                "name": "a",
                "uses": IMAGE,
                "env": {"k": "v"},
                "env_from_secret": {"USER": {"name": "mine", "key": "user"}},
                "image_pull_secrets": ["pull"],
            }
        ],
    },
    "exposed endpoints": {
        "with": {
            "protocol": "http",
            "expose_endpoints": {"/a": {"summary": "s"}, "/b": {"methods": ["PUT"], "summary": "s", "tags": ["t"]}},
        },
    },
    "cloud of the whole flow": {
        "jcloud": {"name": "n", "version": "3.10.0", "labels": {"team": "t"}, "monitor": {"traces": {"enable": True}}},
        "executors": [{"name": "a", "uses": IMAGE}],
    },
    "cloud of the gateway": {
        "gateway": {"jcloud": {"timeout": 100, "expose": False, "resources": {"instance": "C3"}}},
        "executors": [{"name": "a", "uses": "jinaai+serverless://someone/Reader"}],
    },
    "cloud of an executor": {
        "executors": [
            {
                "name": "a",
                "uses": IMAGE,
                "replicas": 5,
                "jcloud": {
                    "minAvailable": 2,
                    "resources": {"storage": {"kind": "ebs", "size": "5G", "retain": True}},
                    "autoscale": {"min": 1, "max": 2, "metric": "rps", "target": 50},
                },
            }
        ],
    },
    "a gateway in an image": {"gateway": {"uses": "docker://my-gateway", "protocol": "http", "port": 5000}},
    "a gateway class with arguments": {
        "gateway": {"py_modules": "front/front.py", "uses": "Front", "with": {"arg": "value"}, "protocol": "http", "port": 5000}
    },
    "a gateway file": {"gateway": {"uses": "front/config.yml", "protocol": "http", "port": 5000}},
    "stateful": {
        "executors": [
            {"name": "a", "stateful": True, "replicas": 3, "peer_ports": {"0": [1, 2, 3]}, "raft_configuration": {"election_timeout": 100}}
        ]
    },
    "an external executor": {"executors": [{"name": "a", "external": True, "host": "10.1.2.3", "port": 5000, "tls": True}]},
    "a join": {
        "executors": [{"name": "a"}, {"name": "b", "needs": "gateway"}, {"name": "c", "needs": ["a", "b"], "disable_reduce": True}],
    },
}

DEPLOYMENTS: dict[str, Any] = {
    "nothing but its kind": {},
    "everything under with": {"with": {"protocol": "grpc", "uses": IMAGE, "replicas": 2}},
    "everything at the top": {"name": "reader", "uses": "Reader", "py_modules": "reader.py"},
    "both places": {
        "version": "1",
        "with": {"protocol": "http"},
        "name": "reader",
        "uses": {"jtype": "Reader", "py_modules": ["reader.py"]},
    },
    "arguments at the top, port under with": {"uses": "Reader", "uses_with": {"text": "t"}, "with": {"port": 5000, "reload": True}},
    "shards": {"with": {"replicas": 2, "shards": 3, "uses": "Reader", "py_modules": ["reader.py"]}},
    "the hub": {"with": {"uses": "jinaai://someone/Reader", "install_requirements": True, "replicas": 5}},
    "cards and batches": {
        "with": {
            "timeout_ready": -1,
            "uses": "jinaai://someone/Painter",
            "env": {"CUDA_VISIBLE_DEVICES": "RR"},
            "replicas": 2,
            "uses_dynamic_batching": {"/default": {"preferred_batch_size": 8, "timeout": 100}},
        }
    },
    "log config": {"with": {"log_config": "./log.yml"}},
    "name and port": {"with": {"name": "reader", "port": 40001, "env": {"LEVEL": "DEBUG"}}},
}

EXECUTORS: dict[str, Any] = {
    "nothing but its class": {"jtype": "Reader"},
    "files": {"jtype": "Reader", "py_modules": ["reader.py"]},
    "a package": {"jtype": "Reader", "py_modules": ["reader/__init__.py"]},
    "one file": {"jtype": "Reader", "py_modules": "reader.py"},
    "batches": {
        "jtype": "Reader",
        "py_modules": ["reader.py"],
        "uses_dynamic_batching": {"/a": {"preferred_batch_size": 8, "timeout": 100}},
    },
    "arguments and metas": {
        "jtype": "Reader",
        "with": {"options": {}},
        "py_modules": ["reader.py"],
        "metas": {"name": "Reader", "description": "d", "url": "https://example.org", "keywords": ["one", "two"]},
    },
    "modules under metas": {"jtype": "Reader", "with": {"foo": 1}, "metas": {"py_modules": ["reader.py"]}},
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the definitions name; it is the current one."""
    for folder in ("front", "reader"):
        (tmp_path / folder).mkdir()
    for name in ("writer.yml", "front/front.py", "all.py"):
        (tmp_path / name).touch()
    (tmp_path / "front/config.yml").write_text("!Front\npy_modules: front.py\nport: 1\n")
    for name in ("reader.py", "reader/__init__.py"):
        (tmp_path / name).write_text("from streamflow import Executor\nclass Reader(Executor):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(path: Path, jtype: str, content: Mapping[str, Any], *, tag: bool) -> Path:
    """The file in one of Jina's two forms: `jtype: Flow` as a key, or `!Flow` as a tag."""
    body = yaml.safe_dump(dict(content), sort_keys=False) if content else ""
    path.write_text(f"!{jtype}\n{body}" if tag else f"jtype: {jtype}\n{body}")
    return path


@pytest.mark.feature("YM-01")
@pytest.mark.parametrize("tag", [False, True], ids=["jtype", "tag"])
@pytest.mark.parametrize("shape", FLOWS)
def test_flows_load(shape: str, tag: bool, files: Path) -> None:
    flow = Flow.load_config(written(files / "flow.yml", "Flow", FLOWS[shape], tag=tag))
    assert len(flow) == len(FLOWS[shape].get("executors", ()))
    assert len(flow.spec().executors) == len(flow)


@pytest.mark.feature("YM-02")
@pytest.mark.parametrize("tag", [False, True], ids=["jtype", "tag"])
@pytest.mark.parametrize("shape", DEPLOYMENTS)
def test_deployments_load(shape: str, tag: bool, files: Path) -> None:
    deployment = Deployment.load_config(written(files / "deployment.yml", "Deployment", DEPLOYMENTS[shape], tag=tag))
    assert len(deployment.spec().executors) == 1


@pytest.mark.feature("YM-03")
@pytest.mark.parametrize("shape", EXECUTORS)
def test_executor_files_are_known_to_the_checker_and_the_worker(shape: str, files: Path) -> None:
    content = EXECUTORS[shape]
    path = written(files / "exec.yml", content["jtype"], {key: value for key, value in content.items() if key != "jtype"}, tag=True)
    assert load_executor_file(path).jtype == "Reader"
    if "py_modules" in str(content):
        assert type(load_executor(str(path), base_dir=files)).__name__ == "Reader"


@pytest.mark.feature("YM-04")
def test_variables_of_the_environment_are_put_in(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "jtype: Flow\nwith: {}\nexecutors:\n- name: a\n  port: 40001\n  env:\n    LEVEL: INFO\n    SECRET: ${{ ENV.JINA_FILES_SECRET }}\n"
    )
    with pytest.raises(FlowError, match=r"inline YAML:8: executors\[0\].env.SECRET: environment variable 'JINA_FILES_SECRET' is not set"):
        load_flow(text)
    monkeypatch.setenv("JINA_FILES_SECRET", "0x1F")
    assert load_flow(text).spec([1]).executors[0].env == {"LEVEL": "INFO", "SECRET": "0x1F"}
    text = "jtype: Deployment\nwith:\n  replicas: ${{ CONTEXT.n }}\n  uses: ${{root.name}}\nname: Reader\n"
    assert load_deployment(text, context={"n": 3}).spec([1]).executors[0].replicas == 3


REFUSED: dict[str, tuple[str, str]] = {
    "a comma at the end of a line": (
        "jtype: Flow\nwith:\n  protocol: http\n  no_debug_endpoints: True,\n  no_crud_endpoints: True\n",
        r"inline YAML:4: with.no_debug_endpoints: Input should be a valid boolean.*; a comma does not belong at the end of a line",
    ),
    "the old name of GraphQL and a comma": (
        "jtype: Flow\nwith:\n  protocol: http\n  expose_graphql_endpont: True,\n",
        r"inline YAML:4: with.expose_graphql_endpont: Input should be a valid boolean.*; a comma",
    ),
    "an executor of a head": (
        "jtype: Flow\nexecutors:\n- name: a\n  shards: 2\n  uses_before: Reader\n",
        r"inline YAML:5: executors\[0\].uses_before: there is no head here",
    ),
    "another kind of file": (
        "jtype: Deployment\nuses: Reader\n",
        "inline YAML:1: this file is a Deployment, not a Flow: use Deployment.load_config, or `streamflow deployment`",
    ),
    "a file that is not there": (
        "jtype: Flow\nexecutors:\n- name: a\n  uses: gone.yml\n",
        r"inline YAML:3: executors\[0\]: executor 'a': uses: no file 'gone.yml' in ",
    ),
    "a mistyped key": (
        "jtype: Flow\nexecutors:\n- name: a\n  replica: 2\n",
        r"executors\[0\].replica: unknown key; did you mean 'replicas'\?",
    ),
}


@pytest.mark.parametrize("shape", REFUSED)
def test_what_does_not_load_is_refused_for_a_reason(shape: str) -> None:
    text, reason = REFUSED[shape]
    with pytest.raises(FlowError, match=reason):
        Flow.load_config(text).spec()


@pytest.mark.parametrize("uses", ["jinaai://someone/Reader", IMAGE, "jinahub://Reader"])
def test_the_hub_is_refused_where_the_executor_is_loaded(uses: str) -> None:
    with pytest.raises(FlowError, match="the hub is gone: copy the executor's source and give its config.yml"):
        load_executor(uses)


def test_a_gateway_file_is_refused_as_an_executor() -> None:
    with pytest.raises(FlowError, match="inline YAML:4: port: unknown key"):
        load_executor_file("!Front\npy_modules: front.py\nwith: {arg1: hello}\nport: 5000\n")
