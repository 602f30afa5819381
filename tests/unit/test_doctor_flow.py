"""`streamflow doctor FILE`: what must change in files written for Jina, and that nothing of them runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamflow.broker import exit_codes
from streamflow.cli.app import main
from streamflow.doctor.flow import examine

ROOT = Path(__file__).resolve().parents[2]
OURS = [
    *ROOT.glob("examples/*.yml"),
    *ROOT.glob("examples/*.py"),
    *ROOT.glob("compose/**/*.yml"),
    *ROOT.glob("src/streamflow/templates/**/*.yml"),
    *ROOT.glob("tests/fixtures/executors/package/*.yml"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(folder: Path, text: str, name: str = "flow.yml") -> list[str]:
    """The report on a file with `text`, without the file's name."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return [str(one).removeprefix(f"{name}:") for one in examine(Path(name))]


def flow(*lines: str) -> str:
    """A flow file of one executor with `lines`, the first of which is line 4."""
    return "\n".join(["jtype: Flow", "executors:", "  - name: encoder", *(f"    {line}" for line in lines), ""])


@pytest.mark.parametrize("file", [pytest.param(file, id=str(file.relative_to(ROOT))) for file in OURS if file.name != "docker-compose.yml"])
def test_our_own_files_need_no_change(file: Path) -> None:
    assert [str(one) for one in examine(file) if not one.is_note] == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("uses: jinahub+docker://CLIP", "4: `jinahub+docker://CLIP`: the hub is gone"),
        ("uses: jinaai://me/CLIP:latest", "4: `jinaai://me/CLIP:latest`: the hub is gone"),
        ("uses: https://example.org/e.yml", "4: `https://example.org/e.yml`: code is not loaded from a URL"),
        ("uses_before: a.yml", "4: executors[0].uses_before: there is no head here"),
        ("replicsa: 2", "4: executors[0].replicsa: unknown key; did you mean 'replicas'?"),
        ("replicas: many", "4: executors[0].replicas: Input should be a valid integer"),
        ("needs: [nobody]", "3: "),
        ("env: {JINA_LOG_LEVEL: DEBUG}", "4: `JINA_LOG_LEVEL`: write `STREAMFLOW_LOG_LEVEL`"),
        ("uses: jina.serve.executors.BaseExecutor", "4: `uses: jina.serve.executors.BaseExecutor`: write a class of your own"),
    ],
)
def test_what_must_change_in_an_executor_of_a_flow(folder: Path, line: str, expected: str) -> None:
    found = said(folder, flow(line))
    assert len(found) == 1 and found[0].startswith(expected), found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("timeout_ctrl: 60", "4: note: `timeout_ctrl`: accepted for Jina's files, has no effect"),
        ("timeout_send: 1000", "4: note: `timeout_send: 1000` is the time of the whole request here"),
        ("retries: 3", "4: note: `retries` counts only for the exceptions that `retry_on` names"),
        ("port: 5555", "4: note: `port` of an executor that runs here has no effect"),
        ("uses: docker://me/encoder", "4: note: `docker://me/encoder`: the image must hold streamflow"),
        ("workspace: ${{ ENV.NOT_SET_HERE }}", "4: note: "),
    ],
)
def test_what_works_but_means_something_else_is_a_note(folder: Path, line: str, expected: str) -> None:
    found = said(folder, flow(line))
    assert len(found) == 1 and found[0].startswith(expected), found


@pytest.mark.parametrize(
    "line",
    ["timeout_send: -1", "retries: -1", "external: true\n    port: 5555", "retries: 3\n    retry_on: [OSError]", "polling: {/search: ALL}"],
)
def test_what_means_the_same_is_not_mentioned(folder: Path, line: str) -> None:
    assert said(folder, flow(line)) == []


@pytest.mark.parametrize("form", ["!Flow\nwith: {}\n", "jtype: Flow\nversion: '1'\nwith: {}\n", "!Deployment\nwith: {replicas: 2}\n"])
def test_both_forms_of_jtype_are_read(folder: Path, form: str) -> None:
    assert said(folder, form) == []


def test_a_gateway_of_jinas_own_becomes_a_protocol(folder: Path) -> None:
    assert said(folder, "jtype: Flow\ngateway:\n  uses: WebSocketGateway\n") == [
        "3: `uses: WebSocketGateway`: write `protocol: websocket` in `gateway:`"
    ]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import jina", "1: `import jina`: write `import streamflow`"),
        ("from jina import Executor", "1: `from jina import Executor`: write `from streamflow import Executor`"),
        (
            "from jina.serve.executors.decorators import write",
            "1: `from jina.serve.executors.decorators import write`: write `from streamflow",
        ),
        ("from jina.proto import jina_pb2", "1: `from jina.proto import jina_pb2`: write the .proto files with `streamflow export proto"),
        ("from jina.helper import random_port", "1: `from jina.helper import random_port`: there is no counterpart"),
        ("from docarray import DocumentArray", "1: `from docarray import DocumentArray`: docarray before 0.30"),
        ("f.add(uses='jinaai://a/b')", "1: `jinaai://a/b`: the hub is gone"),
        ("f.add(uses_after='x.yml')", "1: `uses_after`: there is no head here"),
        ("E.from_hub('x')", "1: `from_hub`: the hub is gone"),
        ("os.environ['JINA_LOG_LEVEL']", "1: `JINA_LOG_LEVEL`: write `STREAMFLOW_LOG_LEVEL`"),
        ("def f(:", "1: cannot be read"),
    ],
)
def test_what_must_change_in_python(folder: Path, code: str, expected: str) -> None:
    found = said(folder, code, "app.py")
    assert len(found) == 1 and found[0].startswith(expected), found


@pytest.mark.parametrize(
    "code", ["from docarray import BaseDoc, DocList", "from streamflow import Flow", "import jinaproject", "docs.texts", "s = 'a JINA_X'"]
)
def test_python_that_is_fine(folder: Path, code: str) -> None:
    assert said(folder, code, "app.py") == []


def test_old_columns_are_named_where_old_documents_are_used(folder: Path) -> None:
    found = said(folder, "from docarray import DocumentArray\ndef f(docs):\n    docs.embeddings = docs.texts\n", "app.py")
    assert found[1:] == [
        "3: `docs.embeddings` of a DocumentArray: write `docs.embedding`",
        "3: `docs.texts` of a DocumentArray: write `docs.text`",
    ]


def test_sources_are_found_from_the_flow_and_read_but_never_run(folder: Path) -> None:
    (folder / "index").mkdir()
    (folder / "index" / "config.yml").write_text("jtype: Indexer\npy_modules: [__init__.py]\n")
    (folder / "index" / "__init__.py").write_text("from .work import Indexer\nopen('ran', 'w')\n")
    (folder / "index" / "work.py").write_text("import helper\nfrom jina import Executor\n")
    (folder / "index" / "requirements.txt").write_text("numpy\njina==3.14\njina-helper\ndocarray<0.30\ndocarray>=0.30\n")
    (folder / "index" / "Dockerfile").write_text('FROM jinaai/jina:3\nENTRYPOINT ["jina", "executor"]\n')
    (folder / "pkg").mkdir()
    (folder / "pkg" / "mod.py").write_text("import jina\n")
    text = "jtype: Flow\nexecutors:\n  - uses: index/config.yml\n  - uses: pkg.mod.Encoder\n"

    places = [f":{line}".partition(": ")[0][1:] for line in said(folder, text)]
    assert places == [
        *("index/Dockerfile:1", "index/Dockerfile:2", "index/requirements.txt:2", "index/requirements.txt:4"),
        *("index/work.py:2", "pkg/mod.py:1"),
    ]
    assert not (folder / "ran").exists()


def test_the_exit_code_is_0_with_notes_and_1_with_changes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "flow.yml").write_text(flow("timeout_ctrl: 60"))
    assert main(["doctor", "flow.yml"]) == exit_codes.OK
    assert capsys.readouterr().err == "nothing must change\n"

    (folder / "flow.yml").write_text(flow("uses: jinahub://x"))
    assert main(["doctor", "flow.yml"]) == exit_codes.FAILED
    told = capsys.readouterr()
    assert told.out.startswith("flow.yml:4: `jinahub://x`: the hub is gone") and told.err == "1 to change\n"

    assert main(["doctor", "flow.yml", "--json"]) == exit_codes.FAILED
    assert json.loads(capsys.readouterr().out)["line"] == 4


def test_what_is_no_yaml_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "flow.yml").write_text("a: [")
    assert main(["doctor", "flow.yml"]) == exit_codes.USAGE
    assert "flow.yml:1: no valid YAML" in capsys.readouterr().err
