"""A whole flow of processes under generated least-privilege keys, with tokens at the gateway; and nothing secret where others can look."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .programs import Program, Programs, addresses_of

EXECUTORS = Path(__file__).with_name("executors") / "guarded.py"
TOKEN = "t0ken-that-nobody-else-may-see"
DIVIDED = {"shards": 2, "polling": {"/run": "ALL"}}


def node(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "uses": {"jtype": "Guarded", "py_modules": [str(EXECUTORS)], "with": {"mark": name[0]}}, **more}


FLOWS: dict[str, list[dict[str, Any]]] = {
    "joins": [
        node("first", retry_on="ValueError"), node("left", needs="first", **DIVIDED), node("right", needs="first"),
        node("last", needs=["left", "right"]),
    ],
    "streams": [node("talker"), node("echo", needs="talker")],
}  # fmt: skip


class Guarded:
    def __init__(self, program: Program, folder: Path, secrets: list[str], executors: list[str]) -> None:
        self.program = program
        self.executors = executors
        self.folder = folder
        self.secrets = secrets
        self.url = f"http://{addresses_of(program)['http']}"

    def ask(self, path: str, content: dict[str, Any] | None, **headers: str) -> tuple[int, bytes]:
        data = None if content is None else json.dumps(content).encode()
        sent = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}", **headers}
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{self.url}{path}", data, sent), timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def run(self, **parameters: Any) -> str:
        status, said = self.ask("/run", {"data": [{"text": "a"}], "parameters": parameters})
        assert status == 200, said
        return str(json.loads(said)["data"][0]["text"])


def generate(programs: Programs, file: Path, folder: Path) -> list[str]:
    """By the command line; returns all seeds."""
    made = programs.streamflow("auth", "generate", "--flow", str(file), "--out", str(folder / "keys"))
    assert made.wait() == 0, made.output
    assert "STREAMFLOW_BROKER_CREDENTIALS" in made.output
    return [path.read_text().strip() for path in (folder / "keys").rglob("*.nk")]


@pytest.fixture(params=list(FLOWS))
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    programs = Programs(tmp_path)
    file = tmp_path / "flow.yml"
    gateway = {"protocol": "http", "port": 0, "host": "127.0.0.1", "auth_file": "auth.yml"}
    file.write_text(
        yaml.safe_dump({"jtype": "Flow", "with": {"name": request.param}, "gateway": gateway, "executors": FLOWS[request.param]})
    )
    (tmp_path / "auth.yml").write_text(f"tokens: [{{name: jo, sha256: {hashlib.sha256(TOKEN.encode()).hexdigest()}}}]\n")
    secrets = generate(programs, file, tmp_path)
    assert len(secrets) == 5 + len(FLOWS[request.param])
    program = programs.streamflow("-v", "flow", "--uses", str(file), STREAMFLOW_BROKER_CREDENTIALS=str(tmp_path / "keys" / "default"))
    try:
        yield Guarded(program, tmp_path, [*secrets, TOKEN], [each["name"] for each in FLOWS[request.param]])
    finally:
        programs.end()


def test_a_flow_works_under_generated_permissions_and_keeps_its_secrets(guarded: Guarded) -> None:
    use_everything(guarded)
    assert guarded.ask("/run", {}, authorization="Bearer wrong")[0] == 401
    shown = visible_to_others(guarded)
    guarded.program.stop()
    shown.append(guarded.program.output)
    assert not [secret[:6] for secret in guarded.secrets for text in shown if secret in text]
    assert "iolation" not in guarded.program.output, [line for line in guarded.program.output.splitlines() if "iolation" in line]


def use_everything(guarded: Guarded) -> None:
    """Joins, shards, another attempt, bodies above what a message can hold, streams."""
    if FLOWS["joins"][0]["name"] in guarded.executors:
        assert "f" in guarded.run() and "f" in guarded.run(fail_first="f")
        assert len(guarded.run(first__times=1_200_000)) > 1_200_000
    else:
        assert len(guarded.run(talker__times=1_200_000)) > 1_200_000
        content = {"data": [{"text": "n"}], "parameters": {"talker__n": 40, "echo__n": 1}}
        status, said = guarded.ask("/tell", content, accept="text/event-stream")
        assert status == 200 and said.count(b'"text"') == 40, said[-500:]


def visible_to_others(guarded: Guarded) -> list[str]:
    """Command lines, environments, the status page, the broker's log and configuration."""
    family = guarded.program.family()
    lines = [argument for process in family for argument in (*process.cmdline(), *process.environ().values())]
    status, info = guarded.ask("/status", None)
    stores = [path for path in guarded.folder.rglob("nats-server.*") if path.is_file()]
    assert status == 200 and len(family) > 4 and len(stores) == 2
    return [*lines, info.decode(), *(path.read_text() for path in stores)]


def test_a_password_for_the_broker_is_refused_on_the_command_line_and_hidden_in_logs(tmp_path: Path) -> None:
    programs = Programs(tmp_path)
    url = "nats://jo:geheim@127.0.0.1:1"
    try:
        refused = programs.streamflow("worker", "--uses", "x.yml", "--broker", url)
        assert refused.wait() == 2 and "STREAMFLOW_BROKER_CREDENTIALS" in refused.output and "geheim" not in refused.output
        silent = programs.streamflow("gateway", STREAMFLOW_BROKER_URL=url, STREAMFLOW_CONNECT_WAIT_S="0.3")
        assert silent.wait() != 0 and "nats://***@127.0.0.1:1" in silent.output and "geheim" not in silent.output
    finally:
        programs.end()
