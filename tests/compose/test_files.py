"""What the shipped files promise, checked without running them."""

from __future__ import annotations

import re
import runpy
import tomllib
from fnmatch import fnmatch
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from docarray import DocList

from .processes import Translation
from .stack import ROOT

COMPOSE = ROOT / "compose"
SERVICES: dict[str, Any] = yaml.safe_load((COMPOSE / "docker-compose.yml").read_text())["services"]
OURS = [name for name in SERVICES if name != "nats"]


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@pytest.mark.parametrize("name", OURS)
def test_every_role_drains_before_it_is_killed(name: str) -> None:
    service = SERVICES[name]
    assert seconds(service["stop_grace_period"]) > int(service["environment"]["STREAMFLOW_DRAIN_S"])


@pytest.mark.feature("HC-05")
@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_restarted_checked_and_has_no_rights_to_spare(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_only_the_gateway_is_published_and_only_on_loopback() -> None:
    assert {name for name, service in SERVICES.items() if service.get("ports")} == {"gateway"}
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["gateway"]["ports"])


def test_the_broker_listens_for_clients_and_for_its_own_monitoring_only() -> None:
    text = re.sub(r"#.*", "", (COMPOSE / "nats.conf").read_text())
    assert re.findall(r"^\w+(?=\s*[:{])", text, re.MULTILINE) == [
        "server_name",
        "listen",
        "http",
        "max_payload",
        "max_pending",
        "jetstream",
    ]
    assert re.search(r'http: "127\.0\.0\.1:', text)


def test_the_image_runs_as_a_user_without_rights() -> None:
    final = (COMPOSE / "Dockerfile").read_text().rsplit("\nFROM ", 1)[1]
    users = re.findall(r"^USER (\S+)", final, re.MULTILINE)
    assert users and users[-1] not in ("root", "0")
    assert "HEALTHCHECK" in final and 'ENTRYPOINT ["streamflow"]' in final


def test_the_flow_names_the_services_that_are_started() -> None:
    flow = yaml.safe_load((COMPOSE / "flow.yml").read_text())
    started = [
        service["command"][service["command"].index("--name") + 1] for service in SERVICES.values() if "worker" in service["command"]
    ]
    assert [executor["name"] for executor in flow["executors"]] == started
    assert {service["command"][service["command"].index("--flow") + 1] for name, service in SERVICES.items() if name != "nats"} == {"shop"}


def test_names_ports_and_paths_become_local_ones(tmp_path: Any) -> None:
    mounts = [{"type": "bind", "source": "/here", "target": "/executor"}, {"type": "volume", "source": "data", "target": "/data"}]
    local = Translation(
        "nats", {"nats": {"volumes": mounts}}, {("nats", 4222): 5001, ("nats", 8222): 5002, ("gateway", 80): 5003}, tmp_path
    )
    given = [
        "nats://nats:4222",
        "4222",
        "http://127.0.0.1:8222/healthz",
        "/executor/exec.yml",
        "/executors",
        "0.0.0.0",
        "42220",
        "gateway:8080",
    ]
    wanted = [
        "nats://127.0.0.1:5001",
        "5001",
        "http://127.0.0.1:5002/healthz",
        "/here/exec.yml",
        "/executors",
        "127.0.0.1",
        "42220",
        "gateway:8080",
    ]
    assert [local(text) for text in given] == wanted
    assert local("/data") == str(tmp_path / "volumes" / "data")


@pytest.mark.feature("EX-01")
def test_the_sample_executors_work_as_plain_objects_and_remember(tmp_path: Any) -> None:
    encoder: Any = SimpleNamespace(**runpy.run_path(str(COMPOSE / "encoder" / "executor.py")))
    indexer: Any = SimpleNamespace(**runpy.run_path(str(COMPOSE / "indexer" / "executor.py")))

    def encoded(*texts: str) -> Any:
        docs = encoder.Encoder().encode(DocList[encoder.Text]([encoder.Text(id=text, text=text) for text in texts]))
        return DocList[indexer.Text]([indexer.Text(**doc.dict()) for doc in docs])

    def opened() -> Any:
        return indexer.Indexer(workspace=str(tmp_path))

    first = opened()
    assert np.linalg.norm(encoded("red shoe")[0].embedding) == pytest.approx(1.0, abs=1e-5)
    assert [doc.indexed for doc in first.index(encoded("red shoe", "blue lamp", "red shoe"))] == [2, 2, 2]
    first.close()
    again = opened()
    found = again.search(encoded("the red shoes"), parameters={"limit": 1})
    assert [match.id for match in found[0].matches] == ["red shoe"]
    again.close()


def test_every_data_file_of_the_packages_goes_into_the_wheel() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    folders = [ROOT / name for name in ("src/streamflow", "broker", "workers", "gateway")]
    files = {path.name for folder in folders for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert [name for name in sorted(files) if not name.endswith(".py") and not any(fnmatch(name, pattern) for pattern in patterns)] == []
