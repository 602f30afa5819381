"""A batch by command line: handed in while nobody is there to work on it, run later, repaired, run again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from streamflow.broker.server import EmbeddedBroker, free_port
from streamflow.cli.app import main
from tests.e2e.programs import Program, Programs, flow_file

BATCH = Path(__file__).parents[1] / "executors" / "batch.py"
FLOW = "batch"
READY = r"(?m)^ready"


def deploy(programs: Programs, broker_url: str) -> None:
    """Leave the flow on the broker, and nobody else."""
    uses = {"jtype": "Batch", "py_modules": [str(BATCH)]}
    gateway = programs.gateway(flow_file(programs.folder, FLOW, [{"name": "upper", "uses": uses}]), broker_url, free_port())
    gateway.wait_for(READY)
    assert gateway.stop() == 0


def worker(programs: Programs, broker_url: str, **options: Any) -> Program:
    return programs.streamflow(
        "worker", "--uses", "Batch", "--py-modules", str(BATCH), "--flow", FLOW, "--name", "upper", "--broker", broker_url,
        "--uses-with", json.dumps(options),
    )  # fmt: skip


class Cli:
    """Commands against one broker; what they print."""

    def __init__(self, broker_url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._place = ("--flow", FLOW, "--broker", broker_url)
        self._capsys = capsys
        self.errors = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        self._capsys.readouterr()
        given = main([*arguments, *self._place])
        said = self._capsys.readouterr()
        self.errors = said.err
        assert given == code, f"{arguments}: {given}\n{said.out}\n{said.err}"
        return said.out.strip()


@pytest.mark.feature("QU-03", "QU-04", "CL-01")
def test_t65_batch_replay(programs: Programs, own_broker: EmbeddedBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(own_broker.url, capsys)
    deploy(programs, own_broker.url)
    texts = [f"text {at}" for at in range(50)] + ["poison"]
    inputs = tmp_path / "data.jsonl"
    inputs.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + "{broken\n")

    job = cli("submit", "--on", "/upper", "--inputs", str(inputs), "--request-size", "1", "--key", "monday")
    assert "left out: line 52: not JSON" in cli.errors and "1 line could not be read" in cli.errors
    assert cli("submit", "--on", "/upper", "--inputs", str(inputs), "--request-size", "1", "--key", "monday") == job
    assert f"{job} running: 0 of 51 requests done" in cli("job", "status", job)
    cli("submit", "--on", "/upper", "--inputs", str(inputs), "--strict", code=2)
    assert "line 52" in cli.errors

    first = worker(programs, own_broker.url, refuses="poison")
    assert "51 of 51 requests done, 1 failed" in cli("job", "status", job, "--wait", code=1)
    lines = [json.loads(line) for line in cli("job", "results", job).splitlines()]
    assert {line["number"]: line["data"][0]["text"] for line in lines if line["code"] == "OK"} == {
        at: text.upper() for at, text in enumerate(texts[:-1])
    }
    (failure,) = (line for line in lines if line["code"] != "OK")
    assert (failure["number"], failure["code"]) == (50, "EXECUTOR_ERROR") and "cannot read poison" in failure["description"]
    assert len(cli("job", "results", job, "--start", str(lines[40]["cursor"])).splitlines()) == 10
    assert first.stop() == 0

    worker(programs, own_broker.url)
    again = cli("replay", "--job", job, "--failed-only", "--wait")
    (repaired,) = map(json.loads, cli("job", "results", again).splitlines())
    assert (repaired["number"], repaired["data"][0]["text"]) == (50, "POISON")
    assert "51 of 51 requests done, 1 failed" in cli("job", "status", job, code=1)
    listed = [json.loads(line) for line in cli("job", "ls", "--json").splitlines()]
    assert [(one["id"], one["state"], one["failed"]) for one in listed] == [(again, "done", 0), (job, "done", 1)]


def test_a_job_is_paused_resumed_and_cancelled(programs: Programs, own_broker: EmbeddedBroker, tmp_path: Path, capsys: Any) -> None:
    cli = Cli(own_broker.url, capsys)
    deploy(programs, own_broker.url)
    inputs = tmp_path / "data.csv"
    inputs.write_text("text\n" + "".join(f"t{at}\n" for at in range(300)))
    job = cli("submit", "--on", "/upper", "--inputs", str(inputs), "--request-size", "1", "--tenant", "acme")
    assert re.search(rf"(?m)^{job}  running +0 +300 .* acme$", cli("job", "ls"))
    assert "paused: 0 of 300" in cli("job", "pause", job)
    assert "running: 0 of 300" in cli("job", "resume", job)
    assert "cancelled: 0 of 300" in cli("job", "cancel", job)
    assert cli("job", "results", job) == ""
    for command in (("job", "status"), ("job", "results"), ("job", "cancel")):
        cli(*command, "nothing", code=2)
        assert "no job 'nothing'" in cli.errors
    cli("replay", "--job", "nothing", code=2)
    cli("submit", "--on", "/nothing", "--inputs", "missing.jsonl", code=2)
    assert "No such file" in cli.errors
