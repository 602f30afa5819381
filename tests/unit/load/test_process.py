"""Real processes: what is started is found, measured and ended, orphans in sessions of their own included."""

import sys
import time
from pathlib import Path

import psutil

from load.process import Command, Server, cpu_s

PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
{then}
"""


def start(folder: Path, then: str) -> Server:
    return Server(Command([sys.executable, "-c", PARENT.format(then=then)]), folder)


def wait_for(condition: object, limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_stop_ends_the_server_and_its_children(tmp_path: Path) -> None:
    server = start(tmp_path, "time.sleep(60)")
    wait_for(lambda: len(server.processes()) == 2)
    family = server.processes()
    server.stop()
    assert not any(psutil.pid_exists(process.pid) and process.status() != psutil.STATUS_ZOMBIE for process in family)
    server.stop()


def test_orphans_of_a_server_that_ended_are_found_and_ended(tmp_path: Path) -> None:
    server = start(tmp_path, "")
    wait_for(lambda: server.exited() == 0)
    assert len(server.processes()) == 1
    server.stop()
    assert server.processes() == []


def test_memory_and_cpu_are_sums_over_all_processes(tmp_path: Path) -> None:
    server = start(tmp_path, "while True: pass")
    try:
        wait_for(lambda: len(server.processes()) == 2)
        wait_for(lambda: cpu_s(server.processes()) > 0.05)
        memory = server.memory()
        assert memory.processes == 2 and 0 < memory.pss_mb <= memory.rss_mb
    finally:
        server.stop()


def test_the_log_tail_tells_why_a_server_ended(tmp_path: Path) -> None:
    server = Server(Command([sys.executable, "-c", "raise SystemExit('no such flow')"]), tmp_path)
    wait_for(lambda: server.exited() is not None)
    assert "no such flow" in server.log_tail()
    server.stop()
