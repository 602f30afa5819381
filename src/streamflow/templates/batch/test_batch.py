"""`pytest` here: the executor as a plain object, then the whole batch, with an own broker on a free port."""

from __future__ import annotations

import json
from pathlib import Path

import client
from docarray import DocList
from executor1.executor import Counter, Text

from streamflow import Flow

HERE = Path(__file__).parent


def test_executor() -> None:
    counts = Counter().count(DocList[Text]([Text(id="a", text="one three")]))
    assert (counts[0].id, counts[0].words, counts[0].longest) == ("a", 2, "three")


def test_batch(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    flow = Flow.load_config(str(HERE / "flow.yml"))
    with flow.config_gateway(port=0):
        assert client.main(str(HERE / "inputs.jsonl"), str(results), f"grpc://127.0.0.1:{flow.port}") == 0
    found = {row["id"]: row["words"] for row in map(json.loads, results.read_text("utf-8").splitlines())}
    assert found == {"note-1": 7, "note-2": 7, "note-3": 7, "note-4": 10, "note-5": 1}


def test_a_failed_request_is_kept_and_the_others_run_on(tmp_path: Path) -> None:
    inputs, results = tmp_path / "inputs.jsonl", tmp_path / "results.jsonl"
    inputs.write_text("".join(json.dumps({"id": f"note-{at}", "text": "" if at == 2 else "words"}) + "\n" for at in range(6)), "utf-8")
    flow = Flow.load_config(str(HERE / "flow.yml"))
    with flow.config_gateway(port=0):
        assert client.main(str(inputs), str(results), f"grpc://127.0.0.1:{flow.port}") == 2
    assert {json.loads(line)["id"] for line in results.read_text("utf-8").splitlines()} == {"note-0", "note-1", "note-4", "note-5"}
    assert {json.loads(line)["id"] for line in (tmp_path / "failed.jsonl").read_text("utf-8").splitlines()} == {"note-2", "note-3"}
