"""What stands beside every figure: machine, commit, how busy the machine was with other things."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from .paths import ROOT
from .process import cpu_s


def machine() -> dict[str, str | int | float]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """Commit of the checkout, with `+` when files differ from it; "none" outside a repository."""
    head = _git("rev-parse", "--short=12", "HEAD") or "none"
    return head + ("+" if _git("status", "--porcelain") else "")


def _git(*args: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


@dataclass(slots=True)
class CpuMeter:
    """CPU used between start and `stop()`, by the server and by everything that is neither server nor driver."""

    processes: list[psutil.Process]
    _server: float = 0.0
    _busy: float = 0.0
    _driver: float = 0.0
    _began: float = 0.0

    def start(self) -> CpuMeter:
        self._server, self._busy, self._driver = cpu_s(self.processes), _busy_s(), _children_s()
        self._began = time.perf_counter()
        return self

    def stop(self) -> tuple[float, float]:
        """CPU seconds of the server; cores that others kept busy on average, which says how far to trust the figures."""
        server = cpu_s(self.processes) - self._server
        elapsed = time.perf_counter() - self._began
        others = _busy_s() - self._busy - server - (_children_s() - self._driver)
        return server, round(max(0.0, others / elapsed), 2)


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0))


def _children_s() -> float:
    """Drivers are awaited children of this process; servers are still running while a load is measured."""
    times = os.times()
    return times.children_user + times.children_system + times.user + times.system
