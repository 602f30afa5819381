"""Peers live in virtual environments of their own under `.peers/`, made by `load/make-peers.sh`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ASK = """
import importlib.metadata, json, platform, sys
print(json.dumps({"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


def missing(home: Path, package: str) -> str:
    """Why the environment cannot be used; "" when it can."""
    found = any(home.glob(f"lib/python*/site-packages/{package}"))
    return "" if found else f"{package} is not installed in {home} (run: make load-peers)"


@cache
def installed(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Versions as the peer's own interpreter reports them."""
    answer = subprocess.run([str(python), "-c", ASK, *packages], capture_output=True, text=True, timeout=60, check=True)
    return dict(json.loads(answer.stdout))
