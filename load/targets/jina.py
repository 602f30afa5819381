"""jina 3.34.0 in its own environment: `jina flow --uses flow.yml`, one gateway and one process per executor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..apps import App
from ..paths import PEERS
from ..process import Command, Server
from .base import module_path, write_flow
from .venv import installed, missing

HOME = PEERS / "jina"
PACKAGES = ("jina", "docarray", "pydantic", "fastapi", "grpcio", "uvicorn", "uvloop", "numpy", "protobuf")


class Jina:
    name = framework = "jina"

    def problem(self) -> str:
        return missing(HOME, "jina")

    def command(self, app: App, protocol: str, port: int, folder: Path) -> Command:
        flow = write_flow(app, protocol, port, folder)
        return Command([str(HOME / "bin" / "jina"), "flow", "--uses", str(flow)], self.client_env())

    def python(self) -> Path:
        return HOME / "bin" / "python"

    def client_env(self) -> Mapping[str, str]:
        # Telemetry off: nothing may leave this machine. Quiet: log lines per request are not what is measured.
        quiet = {"JINA_OPTOUT_TELEMETRY": "1", "JINA_LOG_LEVEL": "ERROR"}
        return {"LOAD_FRAMEWORK": self.framework, "PYTHONPATH": module_path(), **quiet}

    def versions(self) -> Mapping[str, str]:
        return installed(self.python(), PACKAGES)

    def durability(self, server: Server) -> Mapping[str, str]:
        return {"storage": "none, requests live in process memory"}
