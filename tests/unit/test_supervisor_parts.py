"""The pure parts under the supervisor: back-off, texts, the pickles, the bytes on its pipes."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from docarray import BaseDoc, DocList, DocVec
from docarray.typing import NdArray
from hypothesis import given
from hypothesis import strategies as st

from streamflow import logs
from streamflow.assignment import Assignment
from streamflow.broker.errors import Code, InvalidInput
from streamflow.events import Event, Kind, StartFailed
from streamflow.pickling import dumps, loads
from streamflow.report import PipeReport, Said, explain
from streamflow.restarts import LONGEST_S, READY_STABLE_S, STABLE_S, Backoff, describe_exit
from streamflow.watch import Wake, Watch


def test_back_off_doubles_from_a_tenth_of_a_second_to_ten() -> None:
    backoff = Backoff()

    assert [backoff.after(1.0) for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_what_had_been_ready_starts_once_a_second_at_most() -> None:
    backoff = Backoff()

    assert [backoff.after(0.0, was_ready=True) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.after(0.75, was_ready=True) == 0.25
    assert backoff.after(1.0, was_ready=True) == 0.0


def test_what_had_been_ready_for_long_starts_at_once() -> None:
    backoff = Backoff()

    assert [backoff.after(life, was_ready=True) for life in (READY_STABLE_S, 0.0, READY_STABLE_S, 0.0)] == [0.0, 0.2, 0.0, 0.2]


@given(st.lists(st.floats(0, STABLE_S, exclude_max=True)))
def test_back_off_starts_again_after_a_long_life(lives: list[float]) -> None:
    backoff = Backoff()
    for life in lives:
        assert 0.1 <= backoff.after(life) <= LONGEST_S

    assert backoff.after(STABLE_S) == 0.1


@pytest.mark.parametrize(
    ("script", "text"), [("exit 3", "exited with code 3"), ("kill -9 $$", "was killed by SIGKILL"), ("exit 0", "exited with code 0")]
)
def test_ends_are_told_in_words(script: str, text: str) -> None:
    process = subprocess.Popen(["sh", "-c", script])
    _, status = os.waitpid(process.pid, 0)
    process.returncode = 0

    assert describe_exit(status) == text


def test_an_end_by_an_unknown_signal_is_told_by_number() -> None:
    assert describe_exit(signal.SIGRTMIN + 1) == f"was killed by signal {signal.SIGRTMIN + 1}"


@pytest.mark.parametrize(("number", "wake"), [(signal.SIGINT, Wake.INTERRUPT), (signal.SIGTERM, Wake.STOP)])
def test_a_signal_to_stop_comes_before_the_children_that_died_of_it(number: signal.Signals, wake: Wake) -> None:
    with Watch() as watch:
        assert not watch.has_stop()
        os.kill(os.getpid(), signal.SIGCHLD)
        assert not watch.has_stop()
        os.kill(os.getpid(), number)
        assert watch.has_stop()
        assert list(watch.wait(0)) == [wake, Wake.CHILD]
        assert not watch.has_stop()


def test_an_event_survives_its_line() -> None:
    event = Event(Kind.GATEWAY, "up", "gateway", {"addresses": {"http": ["h", 1]}})

    assert Event.from_line(event.to_line()) == event


def test_a_failed_event_becomes_its_error() -> None:
    error = StartFailed.of(Event(Kind.FAILED, "no broker", facts={"code": "UNAVAILABLE", "detail": "trace"}))

    assert (str(error), error.cause, error.detail) == ("no broker", Code.UNAVAILABLE, "trace")


def test_a_report_is_read_back_and_never_raises_when_nobody_listens() -> None:
    read, write = os.pipe()
    PipeReport(write)("ready", "at last", addresses={"http": ["127.0.0.1", 1]})
    line = os.read(read, 4096)
    os.close(read)
    PipeReport(write)("ready")
    os.close(write)

    assert Said.from_line(line) == Said("ready", "at last", {"addresses": {"http": ["127.0.0.1", 1]}})


def test_own_errors_are_told_as_they_are_and_others_with_their_line() -> None:
    try:
        raise KeyError("weights")
    except KeyError as error:
        text = explain(error)

    assert text.startswith("KeyError: 'weights' (") and f"{Path(__file__).name}:" in text
    assert explain(InvalidInput("flow.yml:3: no such key")) == "flow.yml:3: no such key"


def test_a_job_is_read_whole_from_its_pipe() -> None:
    assignment = Assignment.here("a:b", b"x" * 10_000)
    read, write = os.pipe()
    os.write(write, assignment.to_bytes())

    assert Assignment.read(read) == assignment
    os.close(write)
    with pytest.raises(EOFError, match="before it had said what to run"):
        Assignment.read(read)
    os.close(read)


class Inner(BaseDoc):
    text: str = ""
    vector: NdArray[3] | None = None


class Outer(BaseDoc):
    inners: DocList[Inner]


class Encoder:
    """Typed as an executor is."""

    def encode(self, docs: DocList[Inner], **kwargs: object) -> DocList[Outer]:
        return DocList[Outer]([Outer(inners=docs)])

    def stacked(self, docs: DocVec[Inner], **kwargs: object) -> None: ...


READER = """
import sys
from streamflow.pickling import loads
kind = loads(sys.stdin.buffer.read())
from docarray import DocList
docs = kind.encode.__annotations__["docs"]
assert docs is DocList[docs.doc_type], docs
inner = docs.doc_type(text="a", vector=[1, 2, 3])
found = kind().encode(docs([inner]))
assert found[0].inners[0].vector.tolist() == [1.0, 2.0, 3.0]
assert kind.stacked.__annotations__["docs"].doc_type is docs.doc_type
print(sys.modules.get(kind.__module__))
"""


SCRIPT_HEAD = """
from __future__ import annotations
import sys
from docarray import BaseDoc, DocList, DocVec
from docarray.typing import NdArray
from streamflow.pickling import dumps
"""


def read_elsewhere(data: bytes, path: list[str]) -> str:
    """What a fresh interpreter prints about a pickled `Encoder`."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run([sys.executable, "-c", READER], input=data, capture_output=True, env=env, check=False, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def test_typed_classes_of_a_test_travel_by_value() -> None:
    data = dumps(Encoder, Encoder)

    assert Encoder.encode.__annotations__["docs"] == "DocList[Inner]"
    assert read_elsewhere(data, [p for p in sys.path if p]) == "None"


def test_typed_classes_of_a_script_travel_by_value(tmp_path: Path) -> None:
    source = Path(__file__).read_text().partition("\nclass Inner")[2].partition("\nREADER")[0]
    script = tmp_path / "script.py"
    script.write_text(f"{SCRIPT_HEAD}\nclass Inner{source}\nsys.stdout.buffer.write(dumps(Encoder, Encoder))\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    data = subprocess.run([sys.executable, script], capture_output=True, check=True, env=env, timeout=30).stdout

    assert "__main__" in read_elsewhere(data, [p for p in sys.path if p])


def test_classes_of_an_importable_module_travel_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_executors.py").write_text("import threading\nlock = threading.Lock()\nclass Mine:\n    held = lock\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_executors  # type: ignore[import-not-found]

    data = dumps(my_executors.Mine, my_executors.Mine)

    assert b"my_executors" in data and len(data) < 100
    assert loads(data) is my_executors.Mine
    with pytest.raises((TypeError, pickle.PicklingError)):
        dumps({"lock": my_executors.lock})


def test_log_lines_are_json_with_the_process_and_extras() -> None:
    fields = {"name": "streamflow.x", "levelno": 30, "levelname": "WARNING", "msg": "slow %s", "args": ("start",), "request_id": "r1"}
    record = logging.makeLogRecord(fields)
    line = json.loads(logs.JsonFormatter().format(record))

    assert (line["level"], line["message"], line["request_id"], line["logger"]) == ("warning", "slow start", "r1", "streamflow.x")
    assert line["time"].endswith("Z") and line["process"]


def test_flags_win_over_the_environment_of_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_LOG_LEVEL", "WARNING")
    monkeypatch.setenv("STREAMFLOW_LOG_FORMAT", "text")

    assert logs.choose() == logs.Setup("warning", False)
    assert logs.choose(verbose=True) == logs.Setup("debug", False)
    assert logs.choose(quiet=True) == logs.Setup("error", False)
