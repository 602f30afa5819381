"""What the runner asks of a system under test, and the flow file that streamflow and jina share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml

from ..apps import App
from ..paths import EXECUTORS, ROOT
from ..process import Command, Server

HOST = "127.0.0.1"


class Target(Protocol):
    """One system. `framework` is the package whose `Client` belongs to it ("" = none)."""

    name: str
    framework: str

    def problem(self) -> str:
        """Why it cannot be started here; "" when it can."""
        ...

    def command(self, app: App, protocol: str, port: int, folder: Path) -> Command:
        """How to serve `app` on 127.0.0.1:`port`; files it needs are written to `folder`."""
        ...

    def python(self) -> Path: ...

    def client_env(self) -> Mapping[str, str]:
        """Environment for a client program of `framework`, run by `python()`."""
        ...

    def versions(self) -> Mapping[str, str]: ...

    def durability(self, server: Server) -> Mapping[str, str]:
        """What a request survives in the running server."""
        ...


def write_flow(app: App, protocol: str, port: int, folder: Path, **options: Any) -> Path:
    """The app as a flow in Jina's YAML form. The host is spelled out per executor because jina's default binds every interface."""
    executors = [dict(entry) | {"py_modules": [str(EXECUTORS)], "host": HOST} for entry in app.executors]
    flow = {
        "jtype": "Flow",
        "version": "1",
        "with": {"name": "load", "protocol": protocol, "port": port, "host": HOST, **options},
        "executors": executors,
    }
    path = folder / "flow.yml"
    path.write_text(yaml.safe_dump(flow, sort_keys=False))
    return path


def module_path(*more: Path) -> str:
    """PYTHONPATH that finds this package, whatever the interpreter."""
    return ":".join(str(path) for path in (ROOT, *more))
