"""The supervisor with real processes: forks, signals and kills; nothing may be left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from streamflow.broker.errors import Code, FlowError, RuntimeFailToStart
from streamflow.events import StartFailed
from streamflow.pickling import dumps
from streamflow.runtime import LocalRuntime

SOON_S = 10.0


class Flow:
    """A runtime over stand-in children, and the diary that they write."""

    def __init__(self, folder: Path) -> None:
        self.diary = folder / "diary.jsonl"
        self.runtime: LocalRuntime | None = None

    def start(self, *children: dict[str, Any], timeout_s: float | None = SOON_S, **options: Any) -> LocalRuntime:
        spec = {"diary": str(self.diary), "children": list(children), **options}
        self.runtime = LocalRuntime(spec, factory="supervisor_children:prepare", seal=dict)
        self.runtime.start(timeout_s)
        return self.runtime

    def lines(self, **wanted: str) -> list[dict[str, Any]]:
        if not self.diary.exists():
            return []
        whole = self.diary.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in whole if line.endswith("\n")]  # the last one may still be on its way
        return [line for line in found if all(line.get(key) == value for key, value in wanted.items())]

    def pids(self) -> list[int]:
        return [line["pid"] for line in self.lines(what="started")]

    def until(self, condition: Callable[[], bool]) -> float:
        """Wait for `condition`; returns the seconds it took."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < SOON_S, self.diary.read_text()
            time.sleep(0.005)
        return time.monotonic() - started


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flow]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    flow = Flow(tmp_path)
    yield flow
    if flow.runtime is not None:
        flow.runtime.stop()
    assert not [pid for pid in flow.pids() if alive(pid)], "a process was left behind"


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


GATEWAY = {"name": "gateway", "role": "gateway", "addresses": {"http": ["127.0.0.1", 8080], "grpc": ["0.0.0.0", 9090]}}


def test_a_started_flow_knows_its_addresses_and_stops_without_a_trace(flow: Flow) -> None:
    runtime = flow.start(GATEWAY, {"name": "encoder/rep-0"}, {"name": "encoder/rep-1"}, broker=True)

    assert runtime.running
    assert runtime.gateway_addresses == {"http": ("127.0.0.1", 8080), "grpc": ("0.0.0.0", 9090)}
    assert runtime.broker_url == "nats://127.0.0.1:1"
    assert len(flow.pids()) == 4
    supervisor = runtime.pid
    runtime.stop()
    runtime.stop()
    assert not runtime.running
    assert not alive(supervisor)


def test_children_of_a_fork_share_one_parent_and_leave_the_terminals_process_group(flow: Flow) -> None:
    runtime = flow.start({"name": "a"}, {"name": "b"})

    assert {line["parent"] for line in flow.lines(what="started")} == {runtime.pid}
    assert os.getpgid(runtime.pid) != os.getpgid(0)
    assert [os.getpgid(pid) for pid in flow.pids()] == flow.pids()


def test_a_flow_whose_workers_do_not_fit_is_refused_before_it_serves(flow: Flow) -> None:
    children = [{"name": f"{name}/rep-0", "endpoints": [{"name": endpoint}]} for name, endpoint in (("a", "yes"), ("b", "no"))]

    with pytest.raises(FlowError, match="^b of a, b: no$") as raised:
        flow.start(GATEWAY, *children, check=True)

    assert isinstance(raised.value, StartFailed) and raised.value.cause is Code.INVALID_ARGUMENT
    assert flow.start(GATEWAY, children[0], {"name": "c"}, check=True).running


@pytest.mark.feature("ER-08")
def test_a_killed_worker_is_back_within_a_second_and_told_in_one_line(flow: Flow, caplog: pytest.LogCaptureFixture) -> None:
    flow.start({"name": "encoder/rep-0"})
    (first,) = flow.pids()

    os.kill(first, signal.SIGKILL)

    assert flow.until(lambda: len(flow.pids()) == 2) < 1.0
    flow.until(lambda: bool(caplog.messages))
    assert caplog.messages[0].startswith("encoder/rep-0 was killed by SIGKILL after ")
    assert re.search("starting it again (at once|in 0.1 s)$", caplog.messages[0])


def test_a_killed_gateway_is_back_too(flow: Flow) -> None:
    runtime = flow.start(GATEWAY, {"name": "encoder/rep-0"})

    os.kill(flow.lines(name="gateway")[0]["pid"], signal.SIGKILL)

    assert flow.until(lambda: len(flow.lines(name="gateway", what="started")) == 2) < 1.0
    assert runtime.running


def test_a_killed_broker_is_started_again(flow: Flow) -> None:
    flow.start({"name": "encoder/rep-0"}, broker=True)

    os.kill(flow.lines(name="broker")[0]["pid"], signal.SIGKILL)

    assert flow.until(lambda: len(flow.lines(name="broker", what="started")) == 2) < 1.0
    assert len(flow.lines(name="encoder/rep-0", what="started")) == 1


def test_restarts_back_off(flow: Flow) -> None:
    flow.start({"name": "encoder/rep-0", "crash_after_first": True})

    os.kill(flow.pids()[0], signal.SIGKILL)

    flow.until(lambda: len(flow.pids()) == 5)
    times = [line["at"] for line in flow.lines(what="started")]
    pauses = [after - before for before, after in zip(times[1:], times[2:], strict=False)]
    assert [pause > expected for pause, expected in zip(pauses, (0.2, 0.4, 0.8), strict=True)] == [True] * 3


def test_no_zombie_is_left_of_a_child_that_died(flow: Flow) -> None:
    runtime = flow.start({"name": "encoder/rep-0"})
    (first,) = flow.pids()
    os.kill(first, signal.SIGKILL)
    flow.until(lambda: len(flow.pids()) == 2)

    assert [child.status() for child in psutil.Process(runtime.pid).children()] != []
    assert psutil.STATUS_ZOMBIE not in [child.status() for child in psutil.Process(runtime.pid).children()]


def test_the_drain_goes_from_the_gateway_to_the_workers_to_the_broker(flow: Flow) -> None:
    runtime = flow.start({**GATEWAY, "drain_s": 0.2}, {"name": "a", "drain_s": 0.1}, {"name": "b"}, broker=True)

    runtime.stop()

    story = [(line["name"], line["what"]) for line in flow.lines() if line["what"] != "started"]
    assert story[:2] == [("gateway", "asked"), ("gateway", "ended")]
    assert sorted(story[2:6]) == [("a", "asked"), ("a", "ended"), ("b", "asked"), ("b", "ended")]
    assert story[6:] == [("broker", "stopped")]


@pytest.mark.feature("FL-22")
def test_workers_go_on_until_the_queues_are_empty(flow: Flow) -> None:
    runtime = flow.start(GATEWAY, {"name": "a"}, settle={"name": "settle", "role": "settle", "takes_s": 0.2})

    runtime.stop()

    story = [(line["name"], line["what"]) for line in flow.lines() if line["what"] != "started"]
    assert story == [("gateway", "asked"), ("gateway", "ended"), ("settle", "done"), ("a", "asked"), ("a", "ended")]


def test_queues_that_never_get_empty_do_not_hold_a_drain_for_ever(flow: Flow) -> None:
    runtime = flow.start({"name": "a"}, settle={"name": "settle", "role": "settle", "takes_s": 60}, grace_s=0.2)

    runtime.stop()

    assert flow.lines(name="settle") == []
    assert flow.lines(name="a")[-1]["what"] == "ended"


def test_a_signal_that_ends_a_supervisor_drains(flow: Flow) -> None:
    runtime = flow.start({"name": "a", "drain_s": 0.1})

    os.kill(runtime.pid, signal.SIGTERM)

    flow.until(lambda: not alive(runtime.pid))
    assert flow.lines(name="a")[-1]["what"] == "ended"


def test_what_does_not_leave_is_killed(flow: Flow) -> None:
    runtime = flow.start({"name": "a", "deaf": True}, grace_s=0.2)

    runtime.stop()

    assert [line["what"] for line in flow.lines()] == ["started", "asked"]


def test_a_second_request_to_stop_is_faster(flow: Flow) -> None:
    runtime = flow.start({"name": "a", "deaf": True}, {**GATEWAY, "deaf": True}, grace_s=60.0)
    stopping = threading.Thread(target=runtime.stop)
    stopping.start()
    flow.until(lambda: bool(flow.lines(name="gateway", what="asked")))

    supervisor = psutil.Process(flow.lines(name="a")[0]["parent"])
    supervisor.send_signal(signal.SIGTERM)

    stopping.join(5.0)
    assert not stopping.is_alive()


@pytest.mark.feature("ER-01")
def test_an_executor_that_fails_to_load_makes_the_start_fail_with_its_reason(flow: Flow) -> None:
    with pytest.raises(
        RuntimeFailToStart, match=r"encoder/rep-1 could not start, it failed: ValueError: no such model \(.*\.py:\d+\)"
    ) as caught:
        flow.start(GATEWAY, {"name": "encoder/rep-0"}, {"name": "encoder/rep-1", "error": "no such model"}, broker=True)

    assert isinstance(caught.value, StartFailed)
    assert caught.value.cause is Code.INTERNAL
    assert "raise ValueError(settings" in caught.value.detail


def test_a_child_that_exits_before_it_was_ready_makes_the_start_fail(flow: Flow) -> None:
    with pytest.raises(RuntimeFailToStart, match="encoder/rep-0 could not start, it exited with code 9"):
        flow.start({"name": "encoder/rep-0", "exit": 9})


def test_a_target_that_cannot_be_imported_makes_the_start_fail(flow: Flow) -> None:
    with pytest.raises(RuntimeFailToStart, match="ModuleNotFoundError: No module named 'nowhere'"):
        flow.start({"name": "encoder/rep-0", "target": "nowhere:run"})


@pytest.mark.feature("DP-11")
def test_a_child_that_is_late_makes_the_start_fail_saying_what_it_waits_for(flow: Flow) -> None:
    with pytest.raises(StartFailed, match=r"encoder: replica 1/2 ready, loading weights for \d+ s") as caught:
        flow.start({"name": "encoder/rep-0"}, {"name": "encoder/rep-1", "never_ready": True, "ready_s": 0.5, "says": "weights"})

    assert caught.value.cause is Code.DEADLINE_EXCEEDED


def test_a_slow_start_says_what_it_waits_for(flow: Flow, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), pytest.raises(StartFailed, match="not ready within 4 s"):
        flow.start({"name": "encoder/rep-0", "never_ready": True, "says": "weights"}, timeout_s=4)

    assert "encoder: replica 0/1 ready, loading weights for 3 s" in caplog.messages


def test_a_flow_is_ready_only_after_its_tasks(flow: Flow) -> None:
    flow.start({"name": "provision", "role": "task"}, {"name": "a"})

    assert len(flow.lines(name="provision", what="done")) == 1


def test_a_task_that_fails_makes_the_start_fail(flow: Flow) -> None:
    with pytest.raises(RuntimeFailToStart, match="provision could not start, it exited with code 4"):
        flow.start({"name": "provision", "role": "task", "exit": 4}, {"name": "a"})


@pytest.mark.feature("YM-07", "DP-14")
def test_env_of_an_executor_reaches_only_its_own_processes(flow: Flow) -> None:
    flow.start({"name": "a", "env": {"COLOUR": "red"}}, {"name": "b"})

    assert flow.lines(name="a", what="started")[0]["env"]["COLOUR"] == "red"
    assert "COLOUR" not in flow.lines(name="b", what="started")[0]["env"]
    assert "COLOUR" not in os.environ


def test_variables_that_are_read_at_load_get_a_fresh_interpreter(flow: Flow) -> None:
    runtime = flow.start({"name": "a", "env": {"OMP_NUM_THREADS": "1"}}, {"name": "b"})

    commands = {line["name"]: psutil.Process(line["pid"]).cmdline() for line in flow.lines(what="started")}
    assert "streamflow.spawn" in commands["a"]
    assert commands["b"] == psutil.Process(runtime.pid).cmdline()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_classes_of_this_test_reach_the_child_that_opens_them(flow: Flow, monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    monkeypatch.setenv("STREAMFLOW_START", start)

    class Local:
        pass

    flow.start({"name": "a", "sealed": dumps({"executor_class": Local}, Local)})

    assert flow.lines(name="a", what="started")[0]["extra"] == ["executor_class"]


@pytest.mark.feature("EX-37")
def test_spawned_children_are_supervised_like_forked_ones(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_START", "spawn")
    runtime = flow.start(GATEWAY, {"name": "a"}, {"name": "b", "drain_s": 0.1})

    os.kill(flow.lines(name="a")[0]["pid"], signal.SIGKILL)
    flow.until(lambda: len(flow.lines(name="a", what="started")) == 2)
    runtime.stop()

    assert flow.lines(name="b")[-1]["what"] == "ended"


SCRIPT = """
import os, sys
sys.path[:0] = {path!r}
from streamflow.runtime import LocalRuntime
runtime = LocalRuntime({spec!r}, factory="supervisor_children:prepare", seal=dict)
runtime.start(10)
print(runtime.pid, flush=True)
{then}
"""


def run_script(flow: Flow, then: str, *children: dict[str, Any], **options: Any) -> tuple[subprocess.Popen[str], int]:
    """A script that holds a flow. Returns it and its supervisor's pid once the flow is ready."""
    spec = {"diary": str(flow.diary), "children": list(children), **options}
    text = SCRIPT.format(path=sys.path, spec=spec, then=then)
    script = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert script.stdout is not None
    return script, int(script.stdout.readline())


def gone(flow: Flow, *pids: int) -> bool:
    return not any(alive(pid) for pid in (*pids, *flow.pids()))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_kill_9_of_the_script_leaves_no_process_behind(flow: Flow, monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    monkeypatch.setenv("STREAMFLOW_START", start)
    script, supervisor = run_script(flow, "import signal; signal.pause()", GATEWAY, {"name": "a"}, broker=True)

    script.kill()
    script.communicate(timeout=SOON_S)

    flow.until(lambda: gone(flow, supervisor))
    assert flow.lines(name="a")[-1]["what"] == "ended"


def test_kill_9_of_a_script_whose_fork_still_holds_the_pipe_leaves_no_process_behind(flow: Flow) -> None:
    then = "import time\npid = os.fork()\nif not pid: time.sleep(30); os._exit(0)\nprint(pid, flush=True)\ntime.sleep(30)"
    script, supervisor = run_script(flow, then, {"name": "a"})
    assert script.stdout is not None
    fork = int(script.stdout.readline())

    script.kill()
    script.wait()

    flow.until(lambda: gone(flow, supervisor))
    os.kill(fork, signal.SIGKILL)
    script.communicate(timeout=SOON_S)


def test_a_script_that_ends_without_stopping_leaves_no_process_behind(flow: Flow) -> None:
    script, supervisor = run_script(flow, "sys.exit(0)", {"name": "a"}, {"name": "b"})

    assert script.wait(SOON_S) == 0
    script.communicate()

    flow.until(lambda: gone(flow, supervisor))


def test_kill_9_of_the_supervisor_takes_its_children_with_it(flow: Flow) -> None:
    if sys.platform != "linux":
        pytest.skip("PR_SET_PDEATHSIG is of Linux")
    runtime = flow.start(GATEWAY, {"name": "a"})

    os.kill(runtime.pid, signal.SIGKILL)

    flow.until(lambda: gone(flow))
    with pytest.raises(RuntimeFailToStart, match="ended by itself"):
        runtime.wait()


def test_kill_9_of_a_worker_takes_its_own_children_with_it(flow: Flow) -> None:
    flow.start({"name": "a", "target": "supervisor_children:with_helper"})
    helper = flow.lines(name="a/helper")[0]["pid"]

    os.kill(flow.lines(name="a", what="started")[0]["pid"], signal.SIGKILL)

    flow.until(lambda: not alive(helper))


def test_wait_returns_when_its_event_is_set(flow: Flow) -> None:
    runtime = flow.start({"name": "a"})
    event = threading.Event()
    threading.Timer(0.1, event.set).start()

    runtime.wait(event)

    assert runtime.running


def test_ctrl_c_in_a_script_drains(flow: Flow) -> None:
    then = "try:\n    print('up', flush=True)\n    runtime.wait()\nexcept KeyboardInterrupt:\n    runtime.stop()\n    sys.exit(130)"
    script, supervisor = run_script(flow, then, GATEWAY, {"name": "a", "drain_s": 0.1})
    assert script.stdout is not None and script.stdout.readline() == "up\n"

    script.send_signal(signal.SIGINT)

    assert script.wait(SOON_S) == 130
    script.communicate()
    assert gone(flow, supervisor)
    assert flow.lines(name="a")[-1]["what"] == "ended"
