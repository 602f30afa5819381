"""The product's command lines as real processes: started, listened to, signalled and, whatever happens, ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
STEPS = Path(__file__).with_name("executors") / "steps.py"
START_S = 30.0


class Program:
    """One process in a session of its own; stdout and stderr go to one file."""

    def __init__(self, folder: Path, name: str, *command: str, **environment: str) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env=environment_of({"TMPDIR": str(folder), **environment}),  # what a killed flow leaves behind goes with the test
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str, timeout_s: float = START_S) -> re.Match[str]:
        """The first match in the output. Fails when the process ends, or says nothing like it, before."""
        limit = time.monotonic() + timeout_s
        while True:
            ended = self.process.poll() is not None
            if found := re.search(pattern, self.output):
                return found
            assert not ended, f"{self.name} ended with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < limit, f"{self.name} did not say {pattern!r} within {timeout_s} s:\n{self.output}"
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 30.0) -> int:
        """The exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout_s} s:\n{self.output}") from None

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.send(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL, to this process alone."""
        self.process.kill()
        self.process.wait()

    def family(self) -> list[psutil.Process]:
        """This process and all that it started, now."""
        try:
            top = psutil.Process(self.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def end(self) -> None:
        """Whatever is left goes: the way out of a failed test."""
        left = self.family()
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        limit = time.monotonic() + 5.0
        while not all(map(is_over, left)) and time.monotonic() < limit:
            time.sleep(0.01)
        self.process.wait()


def is_over(process: psutil.Process) -> bool:
    """Whether it has ended; whoever is to wait for it may not have done so yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Programs:
    """The processes of one test, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Program] = []
        self._number = 0

    def run(self, name: str, *command: str, **environment: str) -> Program:
        self._number += 1
        program = Program(self.folder, f"{self._number}-{name}", *command, **environment)
        self.started.append(program)
        return program

    def streamflow(self, *arguments: str, **environment: str) -> Program:
        return self.run(arguments[0].strip("-"), sys.executable, "-m", "streamflow", *arguments, **environment)

    def flow(self, file: Path, *arguments: str) -> tuple[Program, dict[str, str]]:
        """A served flow, and its addresses by protocol: `{"http": "127.0.0.1:8080"}`."""
        program = self.streamflow("flow", "--uses", str(file), *arguments)
        return program, addresses_of(program)

    def worker(self, broker_url: str, flow: str, name: str, *arguments: str, **options: Any) -> Program:
        """A worker with executor `Step(**options)`."""
        return self.streamflow(
            "worker", "--uses", "Step", "--py-modules", str(STEPS), "--flow", flow, "--name", name, "--broker", broker_url,
            "--uses-with", json.dumps(options), *arguments,
        )  # fmt: skip

    def gateway(self, file: Path, broker_url: str, port: int, *arguments: str) -> Program:
        """An HTTP gateway that deploys the flow of `file`; it listens on `port` once it says ready."""
        return self.streamflow(
            "gateway", "--uses", str(file), "--broker", broker_url, "--protocol", "http", "--port", str(port),
            "--host", "127.0.0.1", *arguments,
        )  # fmt: skip

    def end(self) -> None:
        for program in reversed(self.started):
            program.end()


def environment_of(more: dict[str, str]) -> dict[str, str]:
    path = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "NO_COLOR": "1", **more}


def addresses_of(program: Program) -> dict[str, str]:
    line = program.wait_for(r'"message": "ready to serve", "addresses": (\{.*?\}), "broker"')
    return {protocol: f"{host}:{port}" for protocol, (host, port) in json.loads(line[1]).items()}


def broker_of(program: Program) -> str:
    """URL of the broker of a served flow."""
    return program.wait_for(r'"broker": "(nats://[^"]+)"')[1]


def step(name: str, *, replicas: int = 1, kind: str = "Step", **options: Any) -> dict[str, Any]:
    """One executor of a flow file: a `Step`, or another `kind` of steps.py."""
    return {"name": name, "replicas": replicas, "uses": {"jtype": kind, "py_modules": [str(STEPS)], "with": options}}


def flow_file(folder: Path, name: str, executors: list[dict[str, Any]], protocols: tuple[str, ...] = ("http",), **options: Any) -> Path:
    """A flow file, listening on free loopback ports."""
    gateway = {"protocol": list(protocols), "port": [0] * len(protocols), "host": "127.0.0.1"}
    definition = {"jtype": "Flow", "version": "1", "with": {"name": name, **options}, "gateway": gateway, "executors": executors}
    file = folder / "flow.yml"
    file.write_text(yaml.safe_dump(definition, sort_keys=False))
    return file


def until(condition: Callable[[], object], timeout_s: float = 20.0, what: str = "the condition") -> float:
    """Wait until `condition()` is true. Returns the seconds it took; fails after `timeout_s`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + timeout_s, f"{what} did not come true within {timeout_s} s"
        time.sleep(0.01)
    return time.monotonic() - started
