"""Whole flows with the real broker, gateway and workers: from the command line, and from a script by `LocalRuntime`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from docarray import BaseDoc, DocList

from streamflow import Deployment, Executor, requests
from streamflow.broker import exit_codes
from streamflow.broker.errors import FlowError, RuntimeFailToStart
from streamflow.broker.server import free_port
from streamflow.cli.app import main
from streamflow.cli.flow import deployment, flow, spec_of
from streamflow.cli.options import State
from streamflow.flow import Flow

SOON_S = 30.0
EXECUTORS = """
import os
from docarray import BaseDoc, DocList
from streamflow import Executor, requests

class Text(BaseDoc):
    text: str = ""

class Shout(Executor):
    @requests(on="/shout")
    def shout(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        for doc in docs:
            doc.text = f"{doc.text.upper()} by {os.getpid()} in {os.environ['MOOD']}"
        return docs

class Broken(Executor):
    def __init__(self, **kwargs):
        raise ValueError("no weights here")
"""
FLOW = """
jtype: Flow
with: {{protocol: http, port: {port}, host: 127.0.0.1}}
executors:
  - {{name: shout, uses: {uses}, py_modules: mine.py, env: {{MOOD: joy}}, replicas: {replicas}}}
"""


class Text(BaseDoc):
    text: str = ""


def until(condition: Callable[[], Any]) -> None:
    limit = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def shout(url: str) -> str:
    body = json.dumps({"data": [{"text": "hi"}]}).encode()
    request = urllib.request.Request(f"{url}/shout", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=SOON_S) as answer:
        return str(json.load(answer)["data"][0]["text"])


def ready(port: int) -> bool:
    return main(["ping", f"http://127.0.0.1:{port}", "--attempts", "1"]) == 0


class Served:
    """A `streamflow flow` in a process of its own."""

    def __init__(self, folder: Path, *, uses: str = "Shout", replicas: int = 1, log: str = "text", **environment: str) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        (folder / "mine.py").write_text(EXECUTORS)
        (folder / "flow.yml").write_text(FLOW.format(port=port, uses=uses, replicas=replicas))
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "STREAMFLOW_LOG_FORMAT": log, **environment}
        command = [sys.executable, "-u", "-m", "streamflow", "flow", "--uses", str(folder / "flow.yml")]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, process_group=0)
        self.family: list[psutil.Process] = []

    def banner(self) -> list[str]:
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline().rstrip() for _ in range(5)]
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        return lines

    def shout(self) -> str:
        return shout(self.url)

    def worker(self) -> int:
        """The pid of the replica that answered."""
        return int(re.findall(r"by (\d+) in", self.shout())[0])

    def stop(self, number: int) -> tuple[int, str]:
        """Exit code and stderr after a signal."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=SOON_S)
        return self.process.returncode, errors


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    if served.process.poll() is None:
        served.stop(signal.SIGTERM)
    assert not [each for each in served.family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.feature("CI-03", "FL-08", "YM-07")
def test_a_flow_file_is_served_and_ctrl_c_ends_it(served: Served) -> None:
    banner = served.banner()

    assert re.match(r"Flow 'default' is ready to serve! \(\d+\.\d s, streamflow .*\)", banner[0])
    assert [line.split()[0] for line in banner[1:]] == ["HTTP", "Docs", "Broker", "Data"]
    assert served.url in banner[1]
    assert served.shout().startswith("HI by ") and served.shout().endswith(" in joy")
    assert main(["ping", served.url, "--attempts", "1"]) == 0
    broker = banner[3].split()[1]
    assert main(["ping", "executor", f"{broker}/default/shout", "--attempts", "1"]) == 0
    assert main(["ping", "executor", f"{broker}/default/shuot", "--attempts", "1"]) == exit_codes.FAILED
    assert served.stop(signal.SIGINT)[0] == exit_codes.INTERRUPTED


def test_a_store_given_on_the_command_line_is_looked_for_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not beside the flow file, as one that is given in it."""
    monkeypatch.chdir(tmp_path)
    context = flow.make_context("flow", ["--uses", "flows/flow.yml", "--store", "data"], obj=State())

    assert context.params["store"] == str(tmp_path / "data")


def test_sigterm_ends_it_with_0(served: Served) -> None:
    served.banner()

    assert served.stop(signal.SIGTERM)[0] == exit_codes.OK


@pytest.mark.feature("ER-08")
def test_a_killed_worker_comes_back_and_requests_are_answered(served: Served) -> None:
    served.banner()
    first = served.worker()

    os.kill(first, signal.SIGKILL)

    assert served.worker() not in (0, first)
    _, errors = served.stop(signal.SIGTERM)
    assert "shout/rep-0 was killed by SIGKILL after " in errors


def test_a_killed_broker_comes_back_with_its_data(served: Served) -> None:
    served.banner()
    served.shout()

    next(each for each in served.family if "nats-server" in each.name()).kill()

    until(lambda: main(["ping", served.url, "--attempts", "1"]) == 0)
    assert served.shout().startswith("HI by ")


def test_machines_get_json_lines(tmp_path: Path) -> None:
    served = Served(tmp_path, log="json")
    try:
        assert served.process.stderr is not None
        lines = map(json.loads, served.process.stderr)
        line = next(line for line in lines if "addresses" in line)  # a slow start says before what it waits for

        assert (line["message"], line["process"], line["addresses"]["http"][0]) == ("ready to serve", "streamflow", "127.0.0.1")
    finally:
        served.stop(signal.SIGTERM)


@pytest.mark.feature("ER-01")
def test_an_executor_that_fails_to_load_is_told_and_ends_with_1(tmp_path: Path) -> None:
    served = Served(tmp_path, uses="Broken")
    output, errors = served.process.communicate(timeout=SOON_S)

    assert served.process.returncode == exit_codes.FAILED
    assert "Error: shout/rep-0 could not start, it failed: " in errors and "no weights here" in errors
    assert "Traceback" not in errors
    assert output == ""


def test_a_broker_that_is_not_there_ends_with_4(tmp_path: Path) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    served = Served(tmp_path, STREAMFLOW_BROKER_URL=url, STREAMFLOW_CONNECT_WAIT_S="0.5")
    _, errors = served.process.communicate(timeout=SOON_S)

    assert served.process.returncode == exit_codes.NO_BROKER
    assert f"no broker at {url}" in errors


@pytest.mark.feature("DP-11")
def test_a_flow_that_is_not_ready_in_time_ends_with_3(tmp_path: Path) -> None:
    served = Served(tmp_path, STREAMFLOW_TIMEOUT_READY="1")
    _, errors = served.process.communicate(timeout=SOON_S)

    assert served.process.returncode == exit_codes.NOT_IN_TIME
    assert "not ready within 0.001 s (timeout_ready): " in errors


@pytest.fixture
def streamflow() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts commands; each is told to stop at the end and must do so."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-u", "-m", "streamflow", *arguments]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env))
        return running[-1]

    yield start
    for process in reversed(running):
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SOON_S)
        assert process.returncode == 0


@pytest.mark.feature("CI-01", "CI-04", "QU-01")
def test_broker_gateway_and_workers_run_on_their_own_too(tmp_path: Path, streamflow: Callable[..., subprocess.Popen[str]]) -> None:
    port, broker = free_port(), free_port()
    (tmp_path / "mine.py").write_text(EXECUTORS)
    (tmp_path / "flow.yml").write_text(FLOW.format(port=port, uses="Shout", replicas=1))
    url = f"nats://127.0.0.1:{broker}"
    streamflow("broker", "--port", str(broker), "--store", str(tmp_path / "data"))
    worker = ("--uses", "Shout", "--py-modules", str(tmp_path / "mine.py"), "--name", "shout", "--env", "MOOD=calm", "--broker", url)
    streamflow("worker", *worker)
    streamflow("gateway", "--uses", str(tmp_path / "flow.yml"), "--broker", url)
    streamflow(
        "gateway", "--flow", "default", "--broker", url, "--protocol", "http", "--port", str(other := free_port()), "--host", "127.0.0.1"
    )

    for each in (port, other):
        until(partial(ready, each))
        assert shout(f"http://127.0.0.1:{each}").endswith(" in calm")
    assert main(["ping", "flow", f"{url}/default", "--attempts", "1"]) == 0


class Reverse(Executor):
    """An executor that only this test knows."""

    @requests(on="/reverse")
    def reverse(self, docs: DocList[Text], **kwargs: Any) -> DocList[Text]:
        return DocList[Text]([Text(text=doc.text[::-1]) for doc in docs])


class Refuses(Executor):
    def __init__(self, **kwargs: Any) -> None:
        raise OSError("no card")


@pytest.mark.feature("EX-34", "EX-37")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_flow_in_a_script_runs_the_scripts_own_classes(monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    monkeypatch.setenv("STREAMFLOW_START", start)
    with Flow(protocol="http", host="127.0.0.1").add(uses=Reverse) as flow:
        body = json.dumps({"data": [{"text": "abc"}]}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{flow.port}/reverse", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=SOON_S) as answer:
            found = json.load(answer)

    assert [doc["text"] for doc in found["data"]] == ["cba"]


class Vector(BaseDoc):
    embedding: list[float]


class Index(Executor):
    @requests(on="/reverse")
    def index(self, docs: DocList[Vector], **kwargs: Any) -> DocList[Vector]:
        return docs


@pytest.mark.feature("FL-12")
def test_a_flow_whose_executors_do_not_fit_fails_to_start_naming_the_field() -> None:
    message = "rev -> index, /reverse: field 'embedding': index requires it, rev does not give it"
    for expected in (FlowError, RuntimeFailToStart):
        with pytest.raises(expected, match=message):
            Flow(protocol="http").add(uses=Reverse, name="rev").add(uses=Index, name="index").start()


@pytest.mark.feature("ER-01", "EX-02")
def test_a_flow_in_a_script_fails_to_start_naming_the_executor() -> None:
    with pytest.raises(RuntimeFailToStart, match="bad/rep-0 could not start, it failed: .*no card"):
        Flow(protocol="http").add(uses=Refuses, name="bad").start()


@pytest.mark.feature("CI-02", "ST-02")
def test_flags_of_a_deployment_win_over_its_file(tmp_path: Path) -> None:
    file = tmp_path / "deployment.yml"
    file.write_text("jtype: Deployment\nwith: {replicas: 2}\n")
    flags = deployment.make_context("deployment", ["--uses", str(file), "--replicas", "3", "--shards", "2", "--stateful"]).params
    uses = flags.pop("uses")

    (node,) = spec_of(Deployment.load_config, uses, flags).graph.nodes

    assert (node.replicas, node.shards, node.stateful) == (3, 2, True)
