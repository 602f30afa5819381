"""The services of an exported Compose file do what the flow does: started here as processes, with names and paths made local."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamflow.broker.server import EmbeddedBroker, free_port
from streamflow.flow import Flow

pytestmark = pytest.mark.feature("CN-01")

LIMIT_S = 30.0
EXECUTOR = """
from docarray import BaseDoc, DocList
from streamflow import Executor, requests

class Text(BaseDoc):
    text: str = ""

class Ends(Executor):
    def __init__(self, end, **kwargs):
        super().__init__(**kwargs)
        self.end = end

    @requests(on="/end")
    def add(self, docs: DocList[Text], **kwargs) -> None:
        for doc in docs:
            doc.text += self.end
"""


@pytest.fixture
def start() -> Iterator[Callable[[list[str], dict[str, str], Path], None]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(arguments: list[str], environment: dict[str, str], folder: Path) -> None:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **environment}
        running.append(subprocess.Popen([sys.executable, "-m", "streamflow", *arguments], env=env, cwd=folder))

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(LIMIT_S) for process in running] == [0] * len(running)


def ask(url: str) -> Any:
    """The answer, tried again until everybody is there."""
    limit = time.monotonic() + LIMIT_S
    request = urllib.request.Request(url, b'{"data": [{"text": "a"}]}', {"content-type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
                return json.load(answer)["data"][0]["text"]
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < limit
            time.sleep(0.1)


def test_what_is_exported_serves(tmp_path: Path, broker: EmbeddedBroker, flow_name: str, start: Callable[..., None]) -> None:
    port, code = free_port(), tmp_path / "code"
    code.mkdir()
    (code / "ends.py").write_text(EXECUTOR)
    (code / "exec.yml").write_text("jtype: Ends\npy_modules: ends.py\nwith: {end: $}\n")
    (tmp_path / "flow.yml").write_text(
        f"jtype: Flow\nwith: {{name: {flow_name}, protocol: http, port: {port}}}\nexecutors:\n"
        "- {name: one, uses: code/exec.yml, when: {text: {$eq: a}}}\n"
        "- {name: two, uses: {jtype: Ends, py_modules: code/ends.py}, uses_with: {end: '${two}'}, shards: 2, polling: ANY}\n"
    )
    Flow.load_config(tmp_path / "flow.yml").to_docker_compose_yaml(tmp_path / "out.yml")
    services = yaml.safe_load((tmp_path / "out.yml").read_text())["services"]
    assert list(services) == ["nats", "gateway", "one", "two-0", "two-1"]

    for service in list(services.values())[1:]:
        context = tmp_path / service["build"]["context"] if "build" in service else tmp_path
        given = {name: str(value).replace("$$", "$") for name, value in service["environment"].items()}
        command = [part.replace("$$", "$").replace("/executor", str(context)) for part in service["command"]]
        start(command, given | {"STREAMFLOW_BROKER_URL": broker.url}, context)

    assert ask(f"http://127.0.0.1:{port}/end") == "a$${two}"
