"""A Docker engine for the compose test: the one that is there, or a private one that leaves nothing behind.

The private one needs root on a Debian machine and no image registry: Debian's `docker.io` is unpacked below `.cache/compose`, not
installed, and runs on a socket of its own; images are built on a base that `debootstrap` makes. `NoEngine` says why this cannot work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from .stack import CACHE, ROOT

PACKAGES = ("docker.io", "debootstrap", "iptables", "iproute2")
RELEASE = "bookworm"  # the base image's Debian; its Python is 3.11
BASE_PYTHON = "3.11"
BASE_IMAGE = "streamflow-base:test"
BROKER_IMAGE = "streamflow-nats:test"


class NoEngine(Exception):
    """No container engine can run here; the text says why."""


class PresentEngine:
    """The engine that `docker` reaches already. Base images are pulled."""

    kind = "containers, on the Docker engine that was running"

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self.tools: dict[str, str] = dict(os.environ)

    def start(self) -> None:
        if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, timeout=30).returncode:
            raise NoEngine("no Docker engine is running")

    def stop(self) -> None:
        """It was not ours to start."""


class PrivateEngine:
    """dockerd on a private socket, with data that is removed again."""

    kind = "containers, on a private Docker engine"

    def __init__(self) -> None:
        self.environment = {"BASE_IMAGE": BASE_IMAGE, "NATS_IMAGE": BROKER_IMAGE}
        self.root = CACHE / "root"
        self.folder = Path()
        self._daemon: subprocess.Popen[bytes] | None = None
        self._links: set[str] = set()
        self._rules: dict[str, bytes] = {}
        self._forward = ""

    @property
    def tools(self) -> dict[str, str]:
        """Environment in which the unpacked programs find each other, their libraries and the socket."""
        libraries = sorted({str(path.parent) for path in (self.root / "usr" / "lib").rglob("*.so*") if path.parent.name != "xtables"})
        plugins = next((str(path) for path in (self.root / "usr" / "lib").rglob("xtables")), "")
        path = [str(CACHE / "bin"), *(str(self.root / part) for part in ("usr/sbin", "usr/bin", "sbin", "bin")), os.environ["PATH"]]
        own = {
            "PATH": ":".join(path),
            "LD_LIBRARY_PATH": ":".join(libraries),
            "DEBOOTSTRAP_DIR": str(self.root / "usr/share/debootstrap"),
            "DOCKER_HOST": f"unix://{self.folder}/docker.sock",
            "DOCKER_BUILDKIT": "0",
        }
        return {**os.environ, **own, **({"XTABLES_LIBDIR": plugins} if plugins else {})}

    def start(self) -> None:
        if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("apt-get"):
            raise NoEngine("a private one needs root on a Debian machine")
        self._unpack()
        self._make_base()
        self._remember_network()
        self._launch()
        self._images()

    def _unpack(self) -> None:
        """Fetch the missing packages and unpack them; the machine's own package database stays as it is."""
        if (self.root / "usr/bin/.complete").exists():
            return
        (CACHE / "debs" / "partial").mkdir(parents=True, exist_ok=True)
        fetch = ["apt-get", "install", "--download-only", "--yes", "--no-install-recommends", "-o", f"Dir::Cache::archives={CACHE}/debs"]
        if subprocess.run([*fetch, *PACKAGES], capture_output=True, timeout=300).returncode:
            subprocess.run(["apt-get", "update"], capture_output=True, timeout=300)
            _check([*fetch, *PACKAGES], os.environ, 300)
        for package in sorted((CACHE / "debs").glob("*.deb")):
            _check(["dpkg", "-x", str(package), str(self.root)], os.environ, 120)
        self._link_iptables()
        (self.root / "usr/bin").mkdir(parents=True, exist_ok=True)
        (self.root / "usr/bin/.complete").touch()

    def _link_iptables(self) -> None:
        """An installed package would get these links from update-alternatives."""
        (CACHE / "bin").mkdir(exist_ok=True)
        program = self.root / "usr/sbin/xtables-nft-multi"
        for name in ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"):
            link = CACHE / "bin" / name
            if program.exists() and not link.is_symlink():
                link.symlink_to(program)

    def _make_base(self) -> None:
        """A Debian with Python, about 300 MB, made once and kept as a tarball."""
        if (CACHE / "base.tar.gz").exists():
            return
        rootfs = CACHE / "rootfs"
        shutil.rmtree(rootfs, ignore_errors=True)
        include = "--include=python3,python3-venv,ca-certificates,wget"
        _check(["debootstrap", "--variant=minbase", include, RELEASE, str(rootfs)], self.tools, 600)
        shutil.rmtree(rootfs / "var/cache/apt/archives", ignore_errors=True)
        _check(["tar", "-C", str(rootfs), "-czf", str(CACHE / "base.partial"), "."], os.environ, 300)
        (CACHE / "base.partial").rename(CACHE / "base.tar.gz")
        shutil.rmtree(rootfs)

    def _remember_network(self) -> None:
        self._links = _links()
        for family in ("iptables", "ip6tables"):
            saved = subprocess.run([f"{family}-save"], env=self.tools, capture_output=True, timeout=30)
            self._rules[family] = saved.stdout if saved.returncode == 0 else b""
        self._forward = Path("/proc/sys/net/ipv4/ip_forward").read_text()

    def _launch(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="streamflow-engine-"))
        command = ["dockerd", "--host", f"unix://{self.folder}/docker.sock", "--pidfile", str(self.folder / "pid")]
        command += ["--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec")]
        with (self.folder / "dockerd.log").open("wb") as log:
            self._daemon = subprocess.Popen(command, env=self.tools, stdout=log, stderr=log, start_new_session=True)
        limit = time.monotonic() + 30.0
        while subprocess.run(["docker", "info"], env=self.tools, capture_output=True, timeout=30).returncode:
            if self._daemon.poll() is not None or time.monotonic() > limit:
                reason = (self.folder / "dockerd.log").read_text(errors="replace").strip().splitlines()[-1:]
                self.stop()
                raise NoEngine(f"dockerd does not start: {' '.join(reason)}")
            time.sleep(0.2)

    def _images(self) -> None:
        """The base, and a broker made of the base and the nats-server of the Python package."""
        from streamflow.broker.server import find_server_binary

        _check(["docker", "import", str(CACHE / "base.tar.gz"), BASE_IMAGE], self.tools, 300)
        context = self.folder / "broker"
        context.mkdir()
        shutil.copy(find_server_binary(), context / "nats-server")
        (context / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nCOPY nats-server /usr/local/bin/nats-server\n")
        _check(["docker", "build", "--quiet", "--tag", BROKER_IMAGE, str(context)], self.tools, 300)
        fill_wheelhouse()

    def stop(self) -> None:
        """End dockerd and put links, packet filter and forwarding back to what they were."""
        if self._daemon is not None:
            self._daemon.terminate()
            try:
                self._daemon.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
            self._daemon = None
        for link in sorted(_links() - self._links):
            subprocess.run(["ip", "link", "delete", link], env=self.tools, capture_output=True, timeout=30)
        for family, rules in self._rules.items():
            self._restore(family, rules)
        if self._forward:
            Path("/proc/sys/net/ipv4/ip_forward").write_text(self._forward)
        if self.folder.name.startswith("streamflow-engine-"):
            _unmount(self.folder)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _restore(self, family: str, rules: bytes) -> None:
        """The saved rules; for a table without any, an empty one that accepts (dockerd leaves FORWARD at DROP)."""
        empty = b"".join(b"*%b\n%b\nCOMMIT\n" % table for table in _EMPTY_TABLES if b"*" + table[0] not in rules)
        subprocess.run([f"{family}-restore"], env=self.tools, input=rules + empty, capture_output=True, timeout=30)


_EMPTY_TABLES = (
    (b"filter", b":INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]"),
    (b"nat", b":PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]"),
)


def start_engine() -> PresentEngine | PrivateEngine:
    """A running engine; raises `NoEngine` with every reason. `STREAMFLOW_COMPOSE_TEST=processes` asks for none."""
    if os.environ.get("STREAMFLOW_COMPOSE_TEST") == "processes":
        raise NoEngine("STREAMFLOW_COMPOSE_TEST=processes")
    reasons = []
    for engine in (PresentEngine(), PrivateEngine()):
        try:
            engine.start()
            return engine
        except (NoEngine, OSError, subprocess.SubprocessError) as error:
            reasons.append(str(error))
            engine.stop()
    raise NoEngine("; ".join(reasons))


def fill_wheelhouse(python: str = BASE_PYTHON) -> None:
    """All that building and running the product needs, as wheels for one Python version; compose/Dockerfile takes it from there."""
    house = ROOT / ".cache" / "wheelhouse" / python
    house.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as copy:  # setuptools would leave build/ and an egg-info in the checkout
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, copy)
        for name in ("src", "broker", "workers", "gateway"):
            shutil.copytree(ROOT / name, Path(copy) / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        pip = [sys.executable, "-m", "pip"]
        _check([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", copy, copy], os.environ, 300)
        wheel = next(Path(copy).glob("streamflow-*.whl"))
        wanted = [str(wheel), "setuptools>=77"]
        options = ["--only-binary=:all:", "--python-version", python, "--dest", str(house), "--find-links", str(house)]
        _check([*pip, "download", "--quiet", *options, *wanted], os.environ, 600)
    for product in house.glob("streamflow-*.whl"):  # always built from the sources
        product.unlink()


def _check(command: list[str], environment: Mapping[str, str], timeout_s: float) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        raise NoEngine(f"{Path(command[0]).name} {command[1]} failed: {(done.stderr or done.stdout).strip()[-500:]}")


def _links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def _unmount(folder: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, timeout=30)
