"""The official jina 3.34.0 Client, unmodified and in its own environment, against our gateway."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow import Executor, Flow, requests

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".peers" / "jina" / "bin" / "python"
NUMBER = 1000

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PYTHON.exists(), reason="no jina in .peers/jina (make load-peers)")]


class Shouts(Executor):
    @requests(on="/shout")
    def shout(self, docs: DocList[TextDoc], parameters: dict[str, Any], **kwargs: Any) -> DocList[TextDoc]:
        return DocList[TextDoc](TextDoc(text=doc.text.upper() + parameters.get("suffix", "")) for doc in docs)

    @requests(on="/fail")
    def fail(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        raise NotImplementedError("no time for it")

    @requests(on="/count")
    def count(self, docs: DocList[TextDoc], **kwargs: Any) -> dict[str, int]:
        return {"count": len(docs)}


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    flow = Flow(protocol=["grpc", "http", "websocket"], host="127.0.0.1").add(uses=Shouts, name="shouts", replicas=2)
    with flow:
        assert isinstance(flow.port, list)
        yield dict(zip(("grpc", "http", "websocket"), flow.port, strict=True))


@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_a_thousand_documents_and_every_kind_of_error(ports: dict[str, int], protocol: str) -> None:
    command = [PYTHON, Path(__file__).with_name("jina_calls.py"), protocol, str(ports[protocol]), str(NUMBER)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=90, env={"JINA_OPTOUT_TELEMETRY": "1", "PATH": "/usr/bin:/bin"})
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["texts"] == sorted(f"DOCUMENT {n}!" for n in range(NUMBER))
    assert found["ready"] is True
    (error,) = found["errors"]
    if protocol == "http":
        assert "NotImplementedError('no time for it')" in error and found["raised"] == "ValueError"
    else:
        assert error == ["NotImplementedError('no time for it')", "NotImplementedError", "Shouts", True]
    assert list(found["results"].values()) == [{"count": 3.0}]
    assert found["targeted"] == ["a"]
    print(f"{protocol}: {len(found['texts'])} right answers, error {str(error)[:80]}, without a callback: {found['raised'] or 'logged'}")
