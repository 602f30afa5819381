"""What somebody at a terminal meets: mistakes are named, exit codes tell, nothing is left behind."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from streamflow.broker.server import EmbeddedBroker

from .programs import STEPS, Program, Programs, environment_of, flow_file, step, until

NOBODY = "nats://127.0.0.1:1"  # port 1 (tcpmux): nothing listens there
FAILED, USAGE, NO_BROKER, INTERRUPTED = 1, 2, 4, 130


def cpu_s(*arguments: str) -> float:
    """CPU seconds of one Python process: what it costs on a busy machine too. The least of three."""
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment_of({}), timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def test_importing_costs_milliseconds() -> None:
    assert cpu_s("-c", "import streamflow") - cpu_s("-c", "pass") < 0.1


def test_help_costs_milliseconds() -> None:
    assert cpu_s("-m", "streamflow", "--help") < 0.3


def write(folder: Path, text: str) -> Path:
    file = folder / "flow.yml"
    file.write_text(text)
    return file


def executor(jtype: str) -> str:
    return f"jtype: Flow\nexecutors:\n  - name: encoder\n    uses:\n      jtype: {jtype}\n      py_modules: [{STEPS}]\n"


def failing(program: Program, code: int, *words: str) -> str:
    """Its output, once it ended with `code` and said `words`, without a traceback."""
    assert program.wait(40) == code, program.output
    for word in words:
        assert word in program.output
    assert "Traceback" not in program.output
    return program.output


def test_a_typo_is_shown_with_file_line_and_the_right_word(programs: Programs) -> None:
    file = write(programs.folder, executor("Step") + "    replicsa: 2\n")
    started = time.monotonic()
    failing(programs.streamflow("flow", "--uses", str(file)), USAGE, f"{file}:7: ", "replicsa", "did you mean 'replicas'?")
    assert time.monotonic() - started < 5


@pytest.mark.feature("EX-26")
def test_a_missing_executor_class_is_named(programs: Programs) -> None:
    file = write(programs.folder, executor("Stepp"))
    failing(programs.streamflow("flow", "--uses", str(file)), USAGE, "encoder", "'Stepp'", "did you mean 'Step'?")


def test_a_missing_file_is_named(programs: Programs) -> None:
    failing(programs.streamflow("flow", "--uses", "nowhere.yml"), USAGE, "nowhere.yml", "No such file")


@pytest.mark.feature("ER-01")
def test_an_executor_that_cannot_be_made_is_named_with_its_cause(programs: Programs) -> None:
    file = write(programs.folder, executor("Raising"))
    failing(
        programs.streamflow("flow", "--uses", str(file)),
        FAILED,
        "encoder",
        "RuntimeError",
        "the weights are gone",
        "-v shows the traceback",
    )


def test_the_traceback_comes_with_v(programs: Programs) -> None:
    file = write(programs.folder, executor("Raising"))
    program = programs.streamflow("-v", "flow", "--uses", str(file))
    assert program.wait() == FAILED
    assert "Traceback" in program.output and str(STEPS) in program.output


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("protocol", ["http", "grpc", "websocket"])
def test_a_port_in_use_is_named(programs: Programs, taken: int, protocol: str) -> None:
    file = flow_file(programs.folder, "ports", [step("one")])
    program = programs.streamflow("flow", "--uses", str(file), "--protocol", protocol, "--port", str(taken), "--host", "127.0.0.1")
    failing(program, FAILED, "gateway", f"127.0.0.1:{taken}")
    until(lambda: not program.family(), what="all processes are gone")


def test_a_taken_broker_port_is_named(programs: Programs, taken: int) -> None:
    failing(programs.streamflow("broker", "--port", str(taken)), FAILED, str(taken), "address already in use")


def test_an_unreachable_broker_is_named_and_has_its_exit_code(programs: Programs) -> None:
    file = flow_file(programs.folder, "nobody", [step("one")])
    short = {"STREAMFLOW_CONNECT_WAIT_S": "1"}
    started = [
        programs.streamflow("flow", "--uses", str(file), "--broker", NOBODY, **short),
        programs.streamflow("gateway", "--uses", str(file), "--broker", NOBODY, **short),
        programs.streamflow("gateway", "--flow", "nobody", "--broker", NOBODY, **short),
        programs.streamflow("worker", "--uses", "Step", "--py-modules", str(STEPS), "--broker", NOBODY, **short),
    ]
    for program in started:
        failing(program, NO_BROKER, f"no broker at {NOBODY}", "streamflow broker")


def test_ctrl_c_ends_what_waits_for_a_broker(programs: Programs) -> None:
    started = [
        programs.streamflow("gateway", "--flow", "nobody", "--broker", NOBODY),
        programs.streamflow("worker", "--uses", "Step", "--py-modules", str(STEPS), "--broker", NOBODY),
    ]
    for program in started:
        program.wait_for("waiting for the broker")
        program.send(signal.SIGINT)
        assert program.wait(15) == INTERRUPTED, program.output


def test_a_worker_without_its_flow_waits_and_says_so(programs: Programs, own_broker: EmbeddedBroker) -> None:
    worker = programs.worker(own_broker.url, "later", "one")
    worker.wait_for(rf"waiting for flow 'later' to be deployed on {own_broker.url}")
    assert worker.process.poll() is None
    file = flow_file(programs.folder, "later", [step("one")])
    gateway = programs.gateway(file, own_broker.url, 0)
    gateway.wait_for(r"(?m)^ready")
    worker.wait_for(r"(?m)^ready")
    for program in (worker, gateway):
        program.send(signal.SIGINT)
        assert program.wait() == INTERRUPTED, program.output


def test_a_worker_for_an_executor_that_the_flow_has_not_says_which_there_are(programs: Programs, own_broker: EmbeddedBroker) -> None:
    gateway = programs.gateway(flow_file(programs.folder, "known", [step("one"), step("two")]), own_broker.url, 0)
    gateway.wait_for(r"(?m)^ready")
    failing(programs.worker(own_broker.url, "known", "three"), USAGE, "three", "one, two")


def left_of(pids: set[int]) -> list[psutil.Process]:
    """Processes of `pids` that are still there; a zombie that waits for its parent is not."""
    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def gone(pids: set[int], timeout_s: float = 15.0) -> None:
    until(lambda: not left_of(pids), timeout_s, f"the end of {pids}")


def test_ctrl_c_while_it_serves_leaves_nothing_behind(programs: Programs) -> None:
    program, _ = programs.flow(flow_file(programs.folder, "ctrlc", [step("one", replicas=2), step("two")]))
    family = {process.pid for process in program.family()}
    assert len(family) == 7  # supervisor, broker, gateway, three workers and their companion
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does, to the whole foreground group
    assert program.wait() == INTERRUPTED
    assert "Traceback" not in program.output
    gone(family)


@pytest.mark.parametrize("moment_s", [0.05, 0.3, 0.6, 1.0, 1.5])
def test_ctrl_c_while_it_starts_leaves_nothing_behind(programs: Programs, moment_s: float) -> None:
    slow = {"name": "slow", "replicas": 2, "uses": {"jtype": "Slow", "py_modules": [str(STEPS)], "with": {"load_s": 60}}}
    program = programs.streamflow("flow", "--uses", str(flow_file(programs.folder, "early", [slow])))
    time.sleep(moment_s)  # the moment is what is tested
    family = {process.pid for process in program.family()}
    os.killpg(program.pid, signal.SIGINT)
    code = program.wait(20)
    in_pythons_own_start = code == FAILED and "KeyboardInterrupt" in program.output  # "Could not import runpy module"
    assert code in (INTERRUPTED, -signal.SIGINT) or in_pythons_own_start, program.output
    gone(family)


def signalling_broker(folder: Path, number: str) -> Path:
    """What stands in for the nats-server: as soon as it runs it sends the whole group a signal, as Ctrl-C does, and dies of it first."""
    file = folder / "nats-server"
    file.write_text(f"#!/bin/sh\nkill -{number} 0\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(("number", "code"), [("INT", INTERRUPTED), ("TERM", 0)])
def test_a_broker_that_dies_of_the_same_signal_is_no_failure(programs: Programs, number: str, code: int) -> None:
    broker = signalling_broker(programs.folder, number)
    file = flow_file(programs.folder, "early", [step("one")])
    program = programs.streamflow("flow", "--uses", str(file), STREAMFLOW_NATS_SERVER=str(broker))
    assert program.wait(20) == code, program.output
    assert "Error" not in program.output


SCRIPT = """
import os, sys, time
from streamflow import Executor, Flow, requests

class Idle(Executor):
    @requests
    def idle(self, docs, **kwargs):
        return docs

if __name__ == "__main__":
    with Flow(protocol="http").add(uses=Idle, name="idle", replicas=2):
        print("serving", flush=True)
        time.sleep({seconds})
        {then}
"""


def script(programs: Programs, seconds: float = 60, then: str = "pass") -> Program:
    file = programs.folder / "script.py"
    file.write_text(SCRIPT.format(seconds=seconds, then=then))
    program = programs.run("script", sys.executable, str(file))
    program.wait_for("serving")
    return program


def test_kill_9_of_the_users_script_leaves_nothing_behind(programs: Programs) -> None:
    program = script(programs)
    family = {process.pid for process in program.family()}
    assert len(family) >= 5  # script, supervisor, broker, gateway, two workers
    program.kill()
    gone(family)


def test_ctrl_c_in_the_users_script_leaves_nothing_behind(programs: Programs) -> None:
    program = script(programs)
    family = {process.pid for process in program.family()}
    os.killpg(program.pid, signal.SIGINT)
    program.wait()
    gone(family)
    assert program.output.count("Traceback") <= 1  # the script's own KeyboardInterrupt, and no process's of ours


@pytest.mark.parametrize("end", ["os._exit(3)", "os.abort()", "raise RuntimeError('mine')", "sys.exit(5)"])
def test_however_the_users_script_ends_nothing_is_left(programs: Programs, end: str) -> None:
    program = script(programs, 0.2, end)
    family = {process.pid for process in program.family()}
    program.wait()
    gone(family)


def test_kill_9_of_the_supervisor_leaves_nothing_behind(programs: Programs) -> None:
    program, _ = programs.flow(flow_file(programs.folder, "orphans", [step("one", replicas=2)]))
    family = {process.pid for process in program.family()}
    program.kill()
    gone(family)
