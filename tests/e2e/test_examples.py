"""Every file of `examples/`, run as its own text says, against the flow of `examples/flow.yml`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .programs import ROOT, Programs, addresses_of, environment_of

EXAMPLES = ROOT / "examples"
PACKAGES = ROOT / ".cache" / "npm"  # kept between runs; git ignores it
NODE = [shutil.which("node") or "", "--no-warnings", "--experimental-websocket", "--experimental-eventsource"]
needs_node = pytest.mark.skipif(not NODE[0], reason="no node on this machine")


@pytest.fixture(scope="module")
def urls(module_programs: Programs) -> Iterator[dict[str, str]]:
    """Host and port by protocol of the served flow."""
    flags = [word for protocol in ("http", "websocket", "grpc") for word in ("--protocol", protocol, "--port", "0")]
    flow = module_programs.streamflow("flow", "--uses", str(EXAMPLES / "flow.yml"), "--host", "127.0.0.1", *flags)
    yield addresses_of(flow)
    flow.stop()


def run(folder: Path, *command: str) -> str:
    """Standard output of a program that ends well."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder, env=environment_of({}), check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_curl_script(urls: dict[str, str], tmp_path: Path) -> None:
    said = run(tmp_path, "sh", str(EXAMPLES / "curl.sh"), f"http://{urls['http']}")

    assert '"words":5,"top":["the","queue"]' in said
    assert [json.loads(line.removeprefix("data: "))["text"] for line in said.splitlines() if line.startswith("data: {")] == [
        "one",
        "by",
        "one",
    ]
    assert "data[0].text: Field required" in said and "status 422" in said
    assert '{"status":"ready"}' in said


def test_a_batch_of_ones_own_notes(urls: dict[str, str], tmp_path: Path) -> None:
    notes = tmp_path / "notes.jsonl"
    notes.write_text("".join(json.dumps({"id": f"n{at}", "text": "a word " * at}) + "\n" for at in range(1, 251)), "utf-8")
    run(tmp_path, sys.executable, str(EXAMPLES / "batch.py"), str(notes), "out.jsonl", f"http://{urls['http']}")

    found = {row["id"]: row["words"] for row in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())}
    assert found == {f"n{at}": 2 * at for at in range(1, 251)}


@pytest.mark.slow
def test_a_batch_of_made_up_notes(urls: dict[str, str], tmp_path: Path) -> None:
    run(tmp_path, sys.executable, str(EXAMPLES / "batch.py"), "", "counts.jsonl", f"http://{urls['http']}")

    assert len((tmp_path / "counts.jsonl").read_text().splitlines()) == 10_000


@needs_node
def test_javascript_with_fetch_eventsource_and_websocket(urls: dict[str, str], tmp_path: Path) -> None:
    said = run(tmp_path, *NODE, str(EXAMPLES / "javascript" / "client.mjs"), f"http://{urls['http']}", f"ws://{urls['websocket']}")

    assert said.splitlines() == [
        "fetch: 5 words, most of all the",
        "a mistake: 422: data[0].text: Field required",
        "EventSource: one, by, one",
        "WebSocket: note-0 1, note-1 2, note-2 3",
    ]


@pytest.fixture(scope="module")
def javascript() -> Path:
    """The folder of the JavaScript examples with its packages installed. Skips when npm cannot get them."""
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("no npm on this machine")
    PACKAGES.mkdir(parents=True, exist_ok=True)
    for file in (EXAMPLES / "javascript").iterdir():
        if file.is_file():
            shutil.copy(file, PACKAGES)
    words = ["install", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", "--fetch-timeout=20000"]
    done = subprocess.run([npm, *words], capture_output=True, text=True, timeout=100, cwd=PACKAGES, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "npm error" in line or "ERR!" in line]
        pytest.skip(f"npm could not install the packages of examples/javascript: {lines[0] if lines else done.returncode}")
    return PACKAGES


@needs_node
def test_a_grpc_client_in_javascript_made_from_the_published_interface(urls: dict[str, str], javascript: Path, tmp_path: Path) -> None:
    protos = tmp_path / "protos"
    run(tmp_path, sys.executable, "-m", "streamflow", "export", "proto", str(protos))
    said = run(tmp_path, *NODE, str(javascript / "grpc_client.mjs"), urls["grpc"], str(protos))

    assert said.splitlines() == [
        "Unary: 5 words, most of all the",
        "a mistake: data[0].text: Field required",
        "Stream: one, by, one",
    ]


@needs_node
def test_the_interface_made_for_jina_loads_too(javascript: Path, tmp_path: Path) -> None:
    run(tmp_path, sys.executable, "-m", "streamflow", "export", "proto", str(tmp_path))
    code = (
        'import loader from "@grpc/proto-loader";'
        f'const found = loader.loadSync("jina.proto", {{ includeDirs: [{json.dumps(str(tmp_path))}] }});'
        'console.log(Object.keys(found["jina.JinaRPC"]).join());'
    )
    (javascript / "load.mjs").write_text(code)

    assert run(tmp_path, *NODE, str(javascript / "load.mjs")) == "Call\n"
