"""The official jina 3.34.0 Client, unmodified, against our gateway with an `auth_file`."""

from __future__ import annotations

import hashlib
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
TOKEN = "only-for-this-test"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PYTHON.exists(), reason="no jina in .peers/jina (make load-peers)")]


class Shouts(Executor):
    @requests(on="/shout")
    def shout(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return DocList[TextDoc](TextDoc(text=doc.text.upper()) for doc in docs)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    path = tmp_path_factory.mktemp("auth") / "auth.yml"
    path.write_text(f"tokens: [{{name: jina, sha256: {hashlib.sha256(TOKEN.encode()).hexdigest()}}}]\n")
    flow = Flow(protocol=["grpc", "http", "websocket"], host="127.0.0.1", auth_file=str(path)).add(uses=Shouts, name="shouts")
    with flow:
        assert isinstance(flow.port, list)
        yield dict(zip(("grpc", "http", "websocket"), flow.port, strict=True))


@pytest.mark.parametrize("token", [TOKEN, "", "wrong"])
@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_a_token_lets_it_in(ports: dict[str, int], protocol: str, token: str) -> None:
    command = [PYTHON, Path(__file__).with_name("jina_token_calls.py"), protocol, str(ports[protocol]), token]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, env={"JINA_OPTOUT_TELEMETRY": "1", "PATH": "/usr/bin:/bin"})
    found = json.loads(run.stdout.splitlines()[-1])
    if token == TOKEN:
        assert found == {"texts": ["A", "B"]}, run.stderr[-2000:]
    else:
        assert found.get("raised"), found
