"""mosec 0.9.8 in its own environment: Rust HTTP front, one Python worker process per stage, JSON without validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..apps import App
from ..paths import LOAD, PEERS
from ..process import Command, Server
from .base import HOST, module_path
from .venv import installed, missing

HOME = PEERS / "mosec"


class Mosec:
    name = "mosec"
    framework = ""

    def problem(self) -> str:
        return missing(HOME, "mosec")

    def command(self, app: App, protocol: str, port: int, folder: Path) -> Command:
        script = LOAD / "peers" / "mosec_server.py"
        env = {**self.client_env(), "LOAD_APP": app.name, "LOAD_ROUTE": f"/{app.endpoint}", "LOAD_SUFFIXES": _suffixes(app)}
        argv = [str(self.python()), str(script), "--address", HOST, "--port", str(port), "--path", str(folder / "socket")]
        return Command([*argv, "--log-level", "warning"], env)

    def python(self) -> Path:
        return HOME / "bin" / "python"

    def client_env(self) -> Mapping[str, str]:
        return {"PYTHONPATH": module_path()}

    def versions(self) -> Mapping[str, str]:
        return installed(self.python(), ("mosec",))

    def durability(self, server: Server) -> Mapping[str, str]:
        return {"storage": "none, requests live in process memory"}


def _suffixes(app: App) -> str:
    return ",".join(entry["uses_with"]["suffix"] for entry in app.executors if "uses_with" in entry)
