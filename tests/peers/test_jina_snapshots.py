"""The official jina 3.34.0 stubs for snapshots of a stateful executor, unmodified and in their own environment, against our gateway."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow import Executor, Flow, requests, write

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".peers" / "jina" / "bin" / "python"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.feature("PR-06", "ST-05"),
    pytest.mark.skipif(not PYTHON.exists(), reason="no jina in .peers/jina (make load-peers)"),
]


class Notes(Executor):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.texts: list[str] = []

    @write
    @requests(on="/add")
    def add(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.texts += [doc.text or "" for doc in docs]

    @requests(on="/all")
    def all(self, **kwargs: Any) -> DocList[TextDoc]:
        return DocList[TextDoc](TextDoc(text=text) for text in self.texts)

    def snapshot(self, snapshot_file: str) -> None:
        Path(snapshot_file).write_text(json.dumps(self.texts))

    def restore(self, snapshot_file: str) -> None:
        self.texts = json.loads(Path(snapshot_file).read_text())


def asked(port: int, *arguments: str) -> dict[str, str]:
    command = [str(PYTHON), str(Path(__file__).with_name("jina_snapshot_calls.py")), str(port), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=90, env={"JINA_OPTOUT_TELEMETRY": "1", "PATH": "/usr/bin:/bin"})
    assert run.returncode == 0, run.stderr[-3000:]
    found: dict[str, str] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_a_snapshot_is_taken_and_gone_back_to_by_jinas_stubs() -> None:
    with Flow(protocol="grpc", host="127.0.0.1").add(uses=Notes, name="notes", stateful=True, replicas=2) as flow:
        assert isinstance(flow.port, int)
        flow.post("/add", DocList[TextDoc]([TextDoc(text="a")]))
        taken = asked(flow.port)
        assert taken["first"] == "RUNNING" and taken["last"] == "SUCCEEDED" and taken["unknown"] == "NOT_FOUND"
        flow.post("/add", DocList[TextDoc]([TextDoc(text="undone")]))
        restored = asked(flow.port, taken["file"])
        assert restored["first"] == "RUNNING" and restored["last"] == "SUCCEEDED" and restored["unknown"] == "NOT_FOUND"
        answer = flow.post("/all", return_type=DocList[TextDoc], consistency="latest")
        assert [doc.text for doc in answer] == ["a"]
