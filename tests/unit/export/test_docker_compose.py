"""A flow as a Compose file: which services, of which code, told what."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamflow.bridge import Bridge
from streamflow.broker.errors import FlowError
from streamflow.cli.app import main
from streamflow.deployment import Deployment
from streamflow.export.code import BASE_IMAGE
from streamflow.export.compose import ComposeFile, Interpolated, Service
from streamflow.flow import Flow
from tests.compose.stack import CACHE

pytestmark = pytest.mark.feature("CN-01")

FLOW = """\
jtype: Flow
with: {name: Shop, protocol: [http, grpc], timeout_send: 500}
gateway: {cors: true, title: "a $b"}
executors:
- {name: encoder, uses: enc/exec.yml, replicas: 3, uses_with: {model: "$a"}, env: {K: "$x"}, concurrency: 1}
- name: indexer
  uses: docker://indexer:1
  shards: 2
  replicas: 2
  workspace: ./ws
  volumes: [enc:/data, models:/models, enc]
  gpus: all
  polling: {/search: ALL}
  when: {tags__x: {$eq: 5}}
- {name: far, external: true, host: h, port: 5}
- {name: plain, gpus: 'device=0,2', entrypoint: my worker}
- {name: inline, uses: {jtype: X, py_modules: [enc/e.py], with: {a: 1}}, uses_requests: {/a: b}, exit_on_exceptions: [OSError]}
- {name: other, external: true, external_flow: their, floating: true}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "enc").mkdir()
    for name in ("enc/exec.yml", "enc/e.py", "enc/requirements.txt"):
        (tmp_path / name).touch()
    (tmp_path / "flow.yml").write_text(FLOW)
    return tmp_path


def exported(flow: Flow | Deployment, path: Path, **options: Any) -> dict[str, Any]:
    flow.to_docker_compose_yaml(path, **options)
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


@pytest.fixture
def services(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = exported(Flow.load_config(folder / "flow.yml"), folder / "out.yml")["services"]
    return found


@pytest.mark.feature("HC-05")
def test_there_is_a_service_for_every_role(services: dict[str, Any]) -> None:
    indexers = [f"indexer-{shard}-rep-{replica}" for shard in (0, 1) for replica in (0, 1)]
    assert list(services) == ["nats", "gateway", "encoder", *indexers, "far", "plain", "inline"]
    for name, service in services.items():
        assert service["restart"] == "unless-stopped" and service["cap_drop"] == ["ALL"] and service["healthcheck"]["test"][0] == "CMD"
        assert name == "nats" or service["depends_on"] == {"nats": {"condition": "service_healthy"}}


def test_replicas_share_a_service_unless_they_keep_files(services: dict[str, Any]) -> None:
    assert services["encoder"]["deploy"] == {"replicas": 3}
    told = [services[f"indexer-1-rep-{replica}"]["environment"] for replica in (0, 1)]
    assert [(each["STREAMFLOW_SHARD"], each["STREAMFLOW_REPLICA"], each["STREAMFLOW_WORKSPACE"]) for each in told] == [
        ("1", "0", "/workspace"),
        ("1", "1", "/workspace"),
    ]


@pytest.mark.feature("CN-03", "EX-26")
def test_code_comes_from_an_image_or_is_built_into_one(services: dict[str, Any]) -> None:
    assert services["indexer-0-rep-0"]["image"] == "indexer:1" and "command" not in services["indexer-0-rep-0"]
    build = services["encoder"]["build"]
    assert build["context"] == "./enc"
    assert build["dockerfile_inline"].startswith("FROM ${STREAMFLOW_IMAGE:-streamflow:local}\nCOPY . /executor\n")
    assert "--requirement /executor/requirements.txt" in build["dockerfile_inline"]
    assert services["encoder"]["command"] == ["worker", "--uses", "/executor/exec.yml"]
    assert services["inline"]["build"]["context"] == "." and "requirements" not in services["inline"]["build"]["dockerfile_inline"]
    *words, uses = services["inline"]["command"]
    assert words == ["worker", "--uses"] and json.loads(uses) == {"jtype": "X", "py_modules": ["/executor/enc/e.py"], "with": {"a": 1}}
    assert services["far"]["command"] == ["worker", "--uses", f"{Bridge.__module__}.Bridge"]
    assert json.loads(services["far"]["environment"]["STREAMFLOW_USES_WITH"]) == {"addresses": ["h:5"]}
    assert services["plain"]["entrypoint"] == ["my", "worker"] and services["plain"]["image"] == str(BASE_IMAGE)


def test_workers_are_told_who_they_are(services: dict[str, Any]) -> None:
    told = services["encoder"]["environment"]
    assert (told["STREAMFLOW_FLOW"], told["STREAMFLOW_NAME"], told["STREAMFLOW_BROKER_URL"]) == ("Shop", "encoder", "nats://nats:4222")
    assert (told["STREAMFLOW_USES_WITH"], told["K"], told["STREAMFLOW_CONCURRENCY"]) == ('{"model": "$$a"}', "$$x", "1")
    told = services["inline"]["environment"]
    assert (told["STREAMFLOW_USES_REQUESTS"], told["STREAMFLOW_EXIT_ON_EXCEPTIONS"]) == ('{"/a": "b"}', '["OSError"]')


@pytest.mark.feature("EX-29", "DP-15")
def test_files_and_devices(services: dict[str, Any], folder: Path) -> None:
    indexer = services["indexer-0-rep-0"]
    assert indexer["volumes"] == ["./enc:/data", "models:/models", "./enc:/enc", "indexer-workspace:/workspace"]
    assert yaml.safe_load((folder / "out.yml").read_text())["volumes"] == {"nats-data": {}, "models": {}, "indexer-workspace": {}}
    (device,) = indexer["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "capabilities": ["gpu"], "count": "all"}
    assert services["plain"]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["0", "2"]


def test_the_gateway_routes_by_the_same_definition(services: dict[str, Any], folder: Path) -> None:
    gateway = services["gateway"]
    assert gateway["ports"] == ["127.0.0.1:8080:8080", "127.0.0.1:8081:8081"] and gateway["command"] == ["gateway"]
    again = Flow.load_config(gateway["environment"]["STREAMFLOW_USES"].replace("$$", "$"))
    assert again.graph.version == Flow.load_config(folder / "flow.yml").graph.version and again.name == "Shop"
    spec = again.spec()
    assert [tuple(each) for each in spec.gateway.listen] == [("http", 8080), ("grpc", 8081)]
    assert (spec.gateway.cors, spec.gateway.title, spec.gateway.timeout_send_ms) == (True, "a $b", 500)


def test_an_external_broker_is_used_and_a_network_named(folder: Path) -> None:
    flow = Flow(name="a", broker="nats://b1:4222,nats://b2:4222", host="127.0.0.1", port=5).add(name="nats")
    found = exported(flow, folder / "out.yml", network_name="net", include_gateway=False)
    assert list(found["services"]) == ["nats"] and found["networks"] == {"default": {"name": "net"}} and "volumes" not in found
    assert "depends_on" not in found["services"]["nats"] and "nats://b1:4222/a/nats" in found["services"]["nats"]["healthcheck"]["test"]
    assert exported(flow, folder / "out.yml")["services"]["gateway"]["ports"] == ["127.0.0.1:5:5"]
    assert list(exported(Flow().add(name="nats"), folder / "out.yml")["services"]) == ["nats-broker", "gateway", "nats"]


def test_certificates_are_mounted(folder: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (folder / name).touch()
    (folder / "flow.yml").write_text("jtype: Flow\ngateway: {ssl_certfile: cert.pem, ssl_keyfile: key.pem}\n")
    gateway = exported(Flow.load_config(folder / "flow.yml"), folder / "out.yml")["services"]["gateway"]
    assert gateway["volumes"] == ["./cert.pem:/certificates/cert.pem:ro", "./key.pem:/certificates/key.pem:ro"]
    assert "ssl_keyfile: /certificates/key.pem" in gateway["environment"]["STREAMFLOW_USES"]


@pytest.mark.feature("CN-02")
def test_the_gateways_image_may_be_another_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_GATEWAY_IMAGE", "gateway:2")
    assert exported(Flow(), folder / "out.yml")["services"]["gateway"]["image"] == "gateway:2"
    own = exported(Flow().config_gateway(uses="docker://mine"), folder / "out.yml")["services"]["gateway"]
    assert own["image"] == "mine" and "command" not in own


def test_a_class_is_built_of_the_folder_of_its_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "enc" / "__init__.py").touch()
    (folder / "enc" / "inner.py").write_text("class Inner:\n    pass\n")
    monkeypatch.syspath_prepend(str(folder))
    from enc.inner import Inner  # type: ignore[import-not-found]  # written above

    worker = exported(Deployment(uses=Inner, name="enc"), folder / "out.yml")["services"]["enc"]
    assert worker["build"]["context"] == "." and worker["command"] == ["worker", "--uses", "enc.inner.Inner"]
    assert exported(Deployment(uses=Bridge), folder / "out.yml")["services"]["executor"]["image"] == str(BASE_IMAGE)


@pytest.mark.feature("CN-03")
def test_a_folder_with_a_dockerfile_is_built_by_it(folder: Path) -> None:
    (folder / "enc" / "Dockerfile").touch()
    encoder = exported(Flow.load_config(folder / "flow.yml"), folder / "out.yml")["services"]["encoder"]
    assert encoder["build"] == {"context": "./enc"} and "command" not in encoder


class Nested:
    class Local:
        pass


def local() -> type:
    class Local:
        pass

    return Local


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"uses": "jinahub://X"}, "executor 'a': uses: jinahub://X: only docker:// names an image; the hub is gone"),
        ({"uses": local()}, "executor 'a': .*Local is defined within a function"),
        ({"uses": "X", "py_modules": ["/etc/hostname"]}, "executor 'a': /etc/hostname is outside of /.*, of which the image is built"),
        ({"uses_with": {"x": object()}}, "executor 'a': uses_with: cannot be written down"),
        ({"gpus": "some"}, "executor 'a': gpus: 'some' is not 'all', a number or 'device=0,1'"),
        ({"name": "nats", "shards": 2}, "executor 'nats-0': there would be two services of this name"),
    ],
)
def test_what_cannot_be_exported_is_told_and_not_written(arguments: dict[str, Any], message: str, folder: Path) -> None:
    flow = Flow().add(name="nats-0").add(**{"name": "a", **arguments})
    with pytest.raises(FlowError, match=message):
        flow.to_docker_compose_yaml(folder / "out.yml")
    assert not (folder / "out.yml").exists()


def test_an_own_gateway_class_cannot_be_exported(folder: Path) -> None:
    with pytest.raises(FlowError, match="gateway: uses: a gateway class of one's own cannot be exported"):
        Flow().config_gateway(uses=Nested).to_docker_compose_yaml(folder / "out.yml")


def test_dollars_are_text_unless_meant_for_compose() -> None:
    service = Service(image=Interpolated("${IMAGE}"), environment={"A": "$a ${B}"}, command=("$x",))
    found = yaml.safe_load(ComposeFile("p", {"s": service}, comment="one\ntwo").to_yaml())["services"]["s"]
    assert (found["image"], found["environment"], found["command"]) == ("${IMAGE}", {"A": "$$a $${B}"}, ["$$x"])


def compose() -> str | None:
    cached = CACHE / "venv" / "bin" / "docker-compose"
    return str(cached) if cached.exists() else shutil.which("docker-compose")


@pytest.mark.skipif(compose() is None, reason="no docker-compose here")
def test_docker_compose_takes_it(folder: Path) -> None:
    assert main(["export", "docker-compose", str(folder / "flow.yml"), str(folder / "out.yml"), "--network-name", "net"]) == 0
    command = [str(compose()), "--file", str(folder / "out.yml"), "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["name"] == "shop" and len(found["services"]) == 10 and found["networks"]["default"]["name"] == "net"
    assert found["services"]["encoder"]["build"]["dockerfile_inline"].startswith("FROM streamflow:local\n")


@pytest.mark.feature("CI-06")
def test_the_command_line_writes_all_three(folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    flow = str(folder / "flow.yml")
    with caplog.at_level(logging.ERROR):
        assert main(["export", "schema"]) == 0
        assert "FlowFile" in json.loads(capsys.readouterr().out)["$defs"]
        assert main(["export", "schema", str(folder / "schema.json")]) == 0
        assert json.loads((folder / "schema.json").read_text())["title"] == "streamflow"
        assert main(["export", "flowchart", flow, str(folder / "f.svg"), "--vertical-layout"]) == 0
        assert main(["export", "docker-compose", flow, str(folder / "out.yml")]) == 0
    assert (folder / "f.svg").exists() and (folder / "out.yml").exists()
    assert main(["export", "flowchart", flow, str(folder / "f.pdf")]) == 2
    assert "a flow chart is written as one of" in capsys.readouterr().err
    (folder / "dep.yml").write_text("jtype: Deployment\nuses: docker://x\n")
    assert main(["export", "docker-compose", str(folder / "dep.yml"), str(folder / "dep-out.yml")]) == 0
    assert list(yaml.safe_load((folder / "dep-out.yml").read_text())["services"]) == ["nats", "gateway", "executor"]
