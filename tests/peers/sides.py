"""Runs `flows.py` and `calls.py` with the Python of either library."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
JINA, OURS = "jina", "streamflow"
PYTHONS = {JINA: str(ROOT / ".peers" / "jina" / "bin" / "python"), OURS: sys.executable}
PORTS = 12
Answers = dict[str, dict[str, Any]]


def has_jina() -> bool:
    return Path(PYTHONS[JINA]).exists()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [made.getsockname()[1] for made in sockets]
    for made in sockets:
        made.close()
    return ports


@contextmanager
def served(library: str, ports: list[int]) -> Iterator[None]:
    """`flows.py` of `library` at `ports`, ready."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [PYTHONS[library], str(HERE / "flows.py"), library, *map(str, ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=_environment(library),
            start_new_session=True,
        )
        output = cast(IO[str], process.stdout)
        try:
            if not any(line.strip() == "ready" for line in output):
                log.seek(0)
                raise RuntimeError(f"{library} did not start: {log.read()[-3000:]}")
            threading.Thread(target=_drain, args=(output,), daemon=True).start()  # jina logs there; a full pipe would stop it
            yield
        finally:
            _stop(process, patient=library == OURS)


def asked(library: str, ports: list[int]) -> Answers:
    """What the client of `library` gets from the servers at `ports`, by way and call."""
    command = [PYTHONS[library], str(HERE / "calls.py"), library, *map(str, ports)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=_environment(library))
    if done.returncode:
        raise RuntimeError(f"calls of {library}: {done.stderr[-3000:]}")
    found: Answers = json.loads(done.stdout.splitlines()[-1])
    return found


def _drain(output: IO[str]) -> None:
    with output:
        for _ in output:
            pass


def _environment(library: str) -> dict[str, str]:
    extra = {"PYTHONPATH": str(ROOT / "src")} if library == OURS else {"JINA_OPTOUT_TELEMETRY": "1"}
    return {**os.environ, **extra}


def _stop(process: subprocess.Popen[str], patient: bool) -> None:
    cast(IO[str], process.stdin).close()
    try:
        # jina's own way out takes minutes once a stream was served.
        process.wait(30 if patient else 0)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
