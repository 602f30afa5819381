"""Server processes: started in a process group of their own, found again with all their children, measured, ended by pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MARK = "STREAMFLOW_LOAD_MARK"
STOP_S = 8.0
KILL_S = 3.0


@dataclass(frozen=True, slots=True)
class Command:
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memory:
    """Sums over all processes of a server. PSS counts a page shared by n processes as 1/n each, USS only pages of the process alone."""

    pss_mb: float
    uss_mb: float
    rss_mb: float
    processes: int


class Server:
    """One running target. Every process below it inherits a marked environment, so that orphans are found too."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.log = folder / "server.log"
        self.mark = uuid.uuid4().hex
        self.started = time.perf_counter()
        with self.log.open("wb") as out:
            self._popen = subprocess.Popen(
                list(command.argv),
                env={**os.environ, **command.env, MARK: self.mark},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def exited(self) -> int | None:
        return self._popen.poll()

    def processes(self) -> list[psutil.Process]:
        """The main process, its descendants, and whatever else carries the mark."""
        found: dict[int, psutil.Process] = {process.pid: process for process in _marked(self.mark)}
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self._popen.pid)
            found.update({process.pid: process for process in (main, *main.children(recursive=True))})
        return [process for process in found.values() if _alive(process)]

    def memory(self) -> Memory:
        infos = [info for process in self.processes() if (info := _memory(process))]
        pss, uss, rss = (sum(column) / 1e6 for column in zip(*infos, (0, 0, 0), strict=True))
        return Memory(pss, uss, rss, len(infos))

    def log_tail(self, lines: int = 12) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """SIGTERM to the main process, then to what is left of its children, then SIGKILL. Bounded in time; may be called twice."""
        family = self.processes()
        if self.exited() is None:
            self._popen.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(STOP_S)
        left = {process.pid: process for process in (*family, *self.processes()) if _alive(process)}
        _signal(left.values(), signal.SIGTERM)
        _, stubborn = psutil.wait_procs(list(left.values()), timeout=KILL_S)
        _signal((*stubborn, *self.processes()), signal.SIGKILL)
        self._popen.wait(KILL_S)


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    """User and system CPU seconds of these processes, with the children they have waited for."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _memory(process: psutil.Process) -> tuple[int, int, int] | None:
    with contextlib.suppress(psutil.Error):
        info = process.memory_full_info()
        return info.pss, info.uss, info.rss
    return None


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
