"""How each test ended when it last ran, kept in .cache/results.json for docs/features.md (`tests/features.py`)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

RESULTS = Path(__file__).resolve().parents[1] / ".cache" / "results.json"
_WORST = ("failed", "passed", "skipped")  # of the phases of a test, and of the parameters of a function


class Recorder:
    """Pytest plugin. Functions that did not run keep their earlier result."""

    def __init__(self, file: Path = RESULTS) -> None:
        self._file = file
        self._ended: dict[str, str] = {}  # "tests/unit/test_x.py::test_y" to "passed", "failed" or "skipped"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("[")[0]
        if report.when == "call" or report.outcome != "passed":
            self._ended[name] = min(self._ended.get(name, report.outcome), report.outcome, key=_WORST.index)

    def pytest_sessionfinish(self) -> None:
        if not self._ended:
            return
        self._file.parent.mkdir(exist_ok=True)
        fresh = self._file.with_suffix(f".{os.getpid()}")  # several runs may end at the same time
        fresh.write_text(json.dumps(read(self._file) | self._ended, indent=0, sort_keys=True))
        fresh.replace(self._file)


def read(file: Path = RESULTS) -> dict[str, str]:
    """The result of each function; empty when no test ran yet."""
    found: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return found
