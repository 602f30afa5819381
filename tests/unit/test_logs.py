"""Logging as flows, executors, files, flags and the environment ask for it (LG-01 to LG-04)."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamflow import Flow, logs
from streamflow.broker.errors import FlowError
from streamflow.log_files import check
from streamflow.members import Role
from streamflow.plan import make_plan
from streamflow.sealing import seal

FORMATTED = "StreamHandler: {format: '%(asctime)s:{name:>15}@%(process)2d[%(levelname).1s]:%(message)s', formatter: PlainFormatter}"


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("LOG_LEVEL", "LOG_CONFIG", "LOG_FORMAT"):
        monkeypatch.delenv(f"STREAMFLOW_{name}", raising=False)
    root, ours = logging.getLogger(), logging.getLogger("streamflow")
    before = list(root.handlers), root.level, list(ours.handlers), ours.propagate, logs.current()
    root.handlers[:] = []  # pytest's own must not be closed
    yield
    logs.setup(before[4])
    root.handlers[:], ours.handlers[:], ours.propagate = before[0], before[2], before[3]
    root.setLevel(before[1])
    logs.rename("streamflow")


def write(folder: Path, text: str) -> str:
    file = folder / "log.yml"
    file.write_text(text)
    return str(file)


@pytest.mark.feature("LG-01", "LG-02")
def test_a_file_decides_about_handlers_format_and_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "logs" / "{name}.json"
    file = write(
        tmp_path,
        f"""
handlers: [StreamHandler, FileHandler]
level: warning
configs:
  {FORMATTED}
  FileHandler: {{output: '{output}', formatter: JsonFormatter}}
""",
    )
    logs.rename("encoder/rep-0")
    logs.setup(logs.choose(options={"log_config": file}))
    log = logging.getLogger("streamflow.x")
    log.info("hidden")
    log.warning("shown", extra={"request_id": "r1", "attempt": 2})

    assert re.fullmatch(r"[\d-]+ [\d:,]+:  encoder/rep-0@\d+\[W\]:shown\n", capsys.readouterr().err)
    (line,) = (tmp_path / "logs" / "encoder-rep-0.json").read_text().splitlines()
    assert json.loads(line)["request_id"] == "r1" and json.loads(line)["process"] == "encoder/rep-0"


@pytest.mark.feature("LG-02")
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("handlers: [Nowhere]", r"log.yml:1: handlers\[0\]: 'Nowhere' is no handler; there are StreamHandler, FileHandler"),
        ("handlers: []", "log.yml:1: handlers: must be a list"),
        ("[1]", "a logging file is a mapping"),
        ("handlers: [StreamHandler]\nlevel: LOUD", "log.yml:2: level: 'LOUD' is no level"),
        ("handlers: [StreamHandler]\nconfigs: {StreamHandler: {formatter: os.system}}", "formatter: there are PlainFormatter"),
        ("handlers: [FileHandler]\nconfigs:\n  FileHandler: {mode: w}", "log.yml:3: .*mode: unknown key; FileHandler takes format"),
    ],
)
def test_a_wrong_file_is_told_with_its_line(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(FlowError, match=error):
        check(write(tmp_path, text))


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("RotatingFileHandler", "{output: '%s/a.log', max_bytes: 10, backup_count: 1}"),
        ("TimedRotatingFileHandler", "{output: '%s/a.log', when: h}"),
        ("RichHandler", "{markup: false}"),
        ("StreamHandler", "{formatter: ColorFormatter}"),
        ("SysLogHandler", "{host: 127.0.0.1, port: 10514, ident: x}"),
    ],
)
def test_every_handler_can_be_asked_for(tmp_path: Path, kind: str, config: str) -> None:
    filled = config % tmp_path if "%s" in config else config
    logs.setup(logs.choose(options={"log_config": write(tmp_path, f"handlers: [{kind}]\nconfigs: {{{kind}: {filled}}}")}))
    logging.getLogger("streamflow.x").error("one")

    assert [type(handler).__name__ for handler in logging.getLogger().handlers] == [kind]
    assert "RotatingFile" not in kind or "one" in (tmp_path / "a.log").read_text()


def test_a_format_that_cannot_be_filled_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, "handlers: [StreamHandler]\nconfigs: {StreamHandler: {format: '{what} %(message)s'}}")
    with pytest.raises(FlowError, match="log_config: format"):
        logs.setup(logs.choose(options={"log_config": file}))


@pytest.mark.feature("LG-04")
def test_quiet_error_hides_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        logs.setup(logs.Setup(json=True, quiet_error=quiet))
        try:
            raise KeyError("weights")
        except KeyError:
            logging.getLogger("streamflow.x").exception("failed")
        assert ("Traceback" in capsys.readouterr().err) is not quiet


@pytest.mark.feature("LG-04")
def test_only_our_own_lines_when_root_logging_is_suppressed(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(logs.adapted(logs.Setup(json=True), {"suppress_root_logging": True}))
    logging.getLogger("someone.else").error("theirs")
    logging.getLogger("streamflow.x").error("ours")

    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["ours"]


@pytest.mark.feature("LG-04")
def test_where_a_setup_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JINA_LOG_LEVEL", "WARNING")
    assert logs.choose().level == "warning"
    monkeypatch.setenv("STREAMFLOW_LOG_LEVEL", "debug")
    assert logs.choose().level == "debug"
    monkeypatch.setenv("STREAMFLOW_LOG_CONFIG", write(tmp_path, "handlers: [StreamHandler]\nlevel: ERROR"))
    assert (logs.choose().level, logs.choose().file) == ("error", check(tmp_path / "log.yml"))
    assert logs.choose(options={"log_config": "default"}).file is None
    assert logs.choose(options={"log_level": "info"}).level == "info"
    assert logs.choose(options={"log_level": "info", "quiet": True}).level == "error"
    assert logs.choose(verbose=True, options={"quiet": True}).level == "debug"


@pytest.mark.feature("LG-03")
def test_a_flow_hands_its_logging_down_and_each_may_have_its_own(tmp_path: Path) -> None:
    write(tmp_path, "handlers: [StreamHandler]")
    (tmp_path / "own.yml").write_text("handlers: [StreamHandler]\nlevel: DEBUG")
    file = tmp_path / "flow.yml"
    file.write_text(
        "jtype: Flow\nwith: {log_config: log.yml, quiet_error: true}\ngateway: {log_level: ERROR}\n"
        "executors: [{name: a}, {name: b, log_config: own.yml}, {name: c, log_config: default, quiet: true}]"
    )
    spec = Flow.load_config(str(file)).spec()
    places = make_plan(seal(spec), "nats://127.0.0.1:1").places

    found = {place.part_of: dict(place.child.logging) for place in places if place.role is not Role.TASK}
    log, own = str(tmp_path / "log.yml"), str(tmp_path / "own.yml")
    assert found == {
        "gateway": {"log_config": log, "log_level": "error", "quiet_error": True},
        "a": {"log_config": log, "quiet_error": True},
        "b": {"log_config": own, "quiet_error": True},
        "c": {"log_config": "default", "quiet": True, "quiet_error": True},
    }
    assert spec.options == {"log_config": log, "quiet_error": True}


def test_a_flow_with_a_wrong_logging_file_does_not_start(tmp_path: Path) -> None:
    file = write(tmp_path, "handlers: [Nowhere]")
    flow = Flow(log_config=file).add(name="a")
    with pytest.raises(FlowError, match=r"log.yml:1: handlers\[0\]"):
        flow.start()
