"""The stack without containers: one local process for each replica, from what `docker-compose config` says.

Kept: commands, environment, start order by health, health checks, restart policy, scaling, bind mounts and volumes (as folders), ports (as
free local ones). Not kept: images, limits, isolation. Used where no container engine can run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from streamflow.broker.server import find_server_binary, free_port

from .stack import COMPOSE_FILE, ROOT, compose_binary

IMAGE_FILES = {"/opt/streamflow/healthcheck.py": str(ROOT / "compose" / "healthcheck.py")}  # what the image brings along
READY_S = 60.0


def read_config() -> dict[str, Any]:
    """The compose file with variables filled in, defaults applied and paths made absolute."""
    command = [compose_binary(), "--file", str(COMPOSE_FILE), "config", "--format", "json"]
    config: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return config


class Translation:
    """Container names, ports and paths of one service to local ones."""

    def __init__(self, name: str, services: dict[str, Any], ports: dict[tuple[str, int], int], folder: Path) -> None:
        self.paths = {**IMAGE_FILES, **{mount["target"]: _source(mount, folder) for mount in services[name].get("volumes", [])}}
        self._own = {str(port): str(local) for (service, port), local in ports.items() if service == name}
        self._others = {f"{service}:{port}": f"127.0.0.1:{local}" for (service, port), local in ports.items()}

    def __call__(self, text: str) -> str:
        for theirs, ours in self._others.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(theirs)}(?!\d)", ours, text)
        if text in self._own:
            return self._own[text]
        for port, local in self._own.items():
            text = re.sub(rf"(?<=127\.0\.0\.1:){port}(?!\d)", local, text)
        for target in sorted(self.paths, key=len, reverse=True):
            if text == target or text.startswith(target + "/"):
                return self.paths[target] + text[len(target) :]
        return "127.0.0.1" if text == "0.0.0.0" else text


def _source(mount: dict[str, Any], folder: Path) -> str:
    if mount["type"] == "bind":
        return str(mount["source"])
    path = folder / "volumes" / mount["source"]
    path.mkdir(parents=True, exist_ok=True)
    return str(path)


class Replica:
    """One process and its log."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], cwd: Path, log: Path) -> None:
        self.name, self.command, self.environment, self.cwd, self.log = name, command, environment, cwd, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=self.cwd, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def stop(self, grace_s: float = 40.0) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class ProcessStack:
    kind = "processes"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="streamflow-stack-"))
        self.services: dict[str, Any] = read_config()["services"]
        wanted = [(name, int(port)) for name, service in self.services.items() for port in _ports(service)]
        self.ports = {key: free_port() for key in wanted}
        self.url = f"http://127.0.0.1:{self.ports['gateway', 8080]}"
        self.replicas: dict[str, list[Replica]] = {name: [] for name in self.services}
        self._lock = threading.Lock()  # the watcher restarts while the test stops
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="restart policy", daemon=True)

    def up(self) -> None:
        self._watcher.start()
        for name in self._order():
            number = self.services[name].get("deploy", {}).get("replicas", 1)
            self._grow(name, number)
            if any(name in other.get("depends_on", {}) for other in self.services.values()):
                self._wait_healthy(name, number)
        for name in self.services:
            self._wait_healthy(name, len(self.replicas[name]))

    def crash(self, service: str) -> None:
        process = self.replicas[service][0].process
        assert process is not None
        process.send_signal(signal.SIGKILL)

    def restart(self, service: str) -> None:
        with self._lock:
            for replica in self.replicas[service]:
                replica.stop()
                replica.start()

    def scale(self, service: str, replicas: int) -> None:
        self._grow(service, replicas - len(self.replicas[service]))
        self._wait_healthy(service, replicas)

    def healthy(self, service: str) -> int:
        return sum(replica.running() and self._check(service, replica) for replica in self.replicas[service])

    def leftovers(self) -> list[str]:
        return [replica.name for group in self.replicas.values() for replica in group if replica.running()]

    def down(self) -> None:
        self._stopping.set()
        with self._lock:
            for name in reversed(self._order()):
                for replica in self.replicas[name]:
                    replica.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _order(self) -> list[str]:
        """Services with those they depend on first."""
        done: list[str] = []
        while len(done) < len(self.services):
            done += [name for name, one in self.services.items() if name not in done and set(one.get("depends_on", {})) <= set(done)]
        return done

    def _grow(self, name: str, number: int) -> None:
        translate = Translation(name, self.services, self.ports, self.folder)
        for _ in range(number):
            replica = self._replica(name, len(self.replicas[name]) + 1, translate)
            replica.start()
            self.replicas[name].append(replica)

    def _replica(self, name: str, number: int, translate: Translation) -> Replica:
        service = self.services[name]
        command = [translate(word) for word in [*(service.get("entrypoint") or []), *service["command"]]]
        environment = {key: translate(value) for key, value in service.get("environment", {}).items()}
        unique = f"{name}-{number}"
        return Replica(
            unique,
            _program(command),
            {**_base_environment(), **environment},
            self._cwd(service, unique, translate),
            self.folder / f"{unique}.log",
        )

    def _cwd(self, service: dict[str, Any], unique: str, translate: Translation) -> Path:
        """The mounted working directory, or a new folder with links to the files that are mounted into it."""
        working = service.get("working_dir", "/")
        if working in translate.paths:
            return Path(translate.paths[working])
        folder = self.folder / unique
        folder.mkdir(exist_ok=True)
        for target, source in translate.paths.items():
            if Path(target).parent == Path(working) and not (folder / Path(target).name).exists():
                (folder / Path(target).name).symlink_to(source)
        return folder

    def _check(self, name: str, replica: Replica) -> bool:
        test = self.services[name]["healthcheck"]["test"]
        command = _program([Translation(name, self.services, self.ports, self.folder)(word) for word in test[1:]])
        return not subprocess.run(command, env=replica.environment, cwd=replica.cwd, capture_output=True, timeout=30).returncode

    def _wait_healthy(self, name: str, number: int) -> None:
        limit = time.monotonic() + READY_S
        while self.healthy(name) < number:
            if time.monotonic() > limit:
                logs = "\n".join(f"{one.name}: {one.log.read_text(errors='replace')[-2000:]}" for one in self.replicas[name])
                raise RuntimeError(f"{name}: {self.healthy(name)} of {number} replicas are healthy\n{logs}")
            time.sleep(0.2)

    def _watch(self) -> None:
        """What `restart: unless-stopped` says."""
        while not self._stopping.wait(0.2):
            with self._lock:
                for name, group in self.replicas.items():
                    for replica in group:
                        if not replica.running() and not self._stopping.is_set() and self.services[name].get("restart", "no") != "no":
                            replica.start()


def _ports(service: dict[str, Any]) -> set[int]:
    return {*map(int, service.get("expose", [])), *(int(port["target"]) for port in service.get("ports", []))}


def _program(command: list[str]) -> list[str]:
    known = {
        "streamflow": [sys.executable, "-m", "streamflow"],
        "python3": [sys.executable],
        "nats-server": [str(find_server_binary())],
    }
    return [*known.get(command[0], command[:1]), *command[1:]]


def _base_environment() -> dict[str, str]:
    path = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
