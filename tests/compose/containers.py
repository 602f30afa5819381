"""The stack as containers, driven by `docker-compose` as a user would drive it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from streamflow.broker.server import free_port

from .engine import PresentEngine, PrivateEngine
from .stack import COMPOSE_FILE, compose_binary

PROJECT = "streamflow-test"


class ContainerStack:
    def __init__(self, engine: PresentEngine | PrivateEngine) -> None:
        port = free_port()
        self.kind = engine.kind
        self.url = f"http://127.0.0.1:{port}"
        own = {"GATEWAY_PORT": str(port), "STREAMFLOW_IMAGE": "streamflow:test"}
        self._environment = {**engine.tools, **engine.environment, **own}
        self._command = [compose_binary(), "--project-name", PROJECT, "--file", str(COMPOSE_FILE)]

    def up(self) -> None:
        self._compose("build", timeout_s=600)
        self._compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120", timeout_s=180)

    def crash(self, service: str) -> None:
        """From outside the container: `docker kill` would count as the user's wish and switch the restart policy off."""
        pid = int(self._docker("inspect", "--format", "{{.State.Pid}}", self._containers(service)[0]["ID"]))
        os.kill(_first_child(pid), signal.SIGKILL)

    def restart(self, service: str) -> None:
        self._compose("restart", service)

    def scale(self, service: str, replicas: int) -> None:
        scale = f"{service}={replicas}"
        self._compose("up", "--detach", "--no-build", "--no-recreate", "--wait", "--wait-timeout", "60", "--scale", scale, service)

    def healthy(self, service: str) -> int:
        return sum(container["Health"] == "healthy" for container in self._containers(service))

    def leftovers(self) -> list[str]:
        mark = f"label=com.docker.compose.project={PROJECT}"
        found = [self._docker("ps", "--all", "--quiet", "--filter", mark)]
        found += [self._docker(kind, "ls", "--quiet", "--filter", mark) for kind in ("volume", "network")]
        return [line for text in found for line in text.split()]

    def down(self) -> None:
        self._compose("down", "--volumes", "--timeout", "40", timeout_s=180)

    def _containers(self, service: str) -> list[dict[str, Any]]:
        text = self._compose("ps", "--format", "json", service)
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def _docker(self, *arguments: str) -> str:
        return _run(["docker", *arguments], self._environment, 60)

    def _compose(self, *arguments: str, timeout_s: float = 120) -> str:
        try:
            return _run([*self._command, *arguments], self._environment, timeout_s)
        except RuntimeError as error:
            logs = subprocess.run(
                [*self._command, "logs", "--tail", "30"], env=self._environment, capture_output=True, text=True, timeout=60
            )
            raise RuntimeError(f"{error}\n{logs.stdout}") from error


def _run(command: list[str], environment: dict[str, str], timeout_s: float) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[-6:])}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def _first_child(pid: int) -> int:
    """The role's own process; `pid` is the init process of the container."""
    limit = time.monotonic() + 10.0
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while not (found := children.read_text().split()):
        if time.monotonic() > limit:
            raise RuntimeError(f"process {pid} has no child")
        time.sleep(0.05)
    return int(found[0])
