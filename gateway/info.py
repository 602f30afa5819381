"""Versions, platform and settings of this process: `GET /status` and Jina's `JinaInfoRPC._status`."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
import uuid
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from streamflow.broker.redact import shown_url
from streamflow.broker.settings import GatewaySettings

_PREFIXES = ("STREAMFLOW_", "JINA_")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_STARTED = time.time()
_SESSION = uuid.uuid4().hex


def gateway_info(extra: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """`{"jina": versions and platform, "envs": settings from the environment}`, secrets masked; `extra` goes to the first."""
    return {"jina": _versions() | dict(extra), "envs": _environment()}


def _versions() -> dict[str, str]:
    return {
        "streamflow": _version("streamflow"),
        "jina": f"streamflow {_version('streamflow')}",
        "docarray": _version("docarray"),
        "grpcio": _version("grpcio"),
        "protobuf": _version("protobuf"),
        "pyyaml": _version("pyyaml"),
        "python": platform.python_version(),
        "platform": platform.system(),
        "platform-release": platform.release(),
        "platform-version": platform.version(),
        "architecture": platform.machine(),
        "processor": platform.processor(),
        "implementation": sys.implementation.name,
        "session-id": _SESSION,
        "uptime": f"{time.time() - _STARTED:.1f} s",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _environment() -> dict[str, str]:
    known = {f"STREAMFLOW_{name.upper()}": "(unset)" for name in GatewaySettings.model_fields}
    found = {name: _masked(name, value) for name, value in os.environ.items() if name.startswith(_PREFIXES)}
    return known | found


def _masked(name: str, value: str) -> str:
    return "***" if _SECRET.search(name) else shown_url(value)
