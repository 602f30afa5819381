"""wrk 4.1.0 as the closed-loop HTTP client: one thread, keep-alive, one fixed body."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..paths import LOAD
from .program import run_program

SCRIPT = LOAD / "drivers" / "wrk.lua"


def available() -> bool:
    return shutil.which("wrk") is not None


def closed(url: str, body: Path, concurrency: int, seconds: float) -> dict[str, float]:
    argv = ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds:g}s", "--timeout", "10s", "-s", str(SCRIPT), url]
    return run_program(argv, {"LOAD_BODY": str(body)}, seconds)
