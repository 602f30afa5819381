"""docs/features.md tells the truth about what is tested."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import features, results


def test_every_marked_feature_is_listed() -> None:
    known = features.features()
    assert {name: proof for name, proof in features.marks() if name not in known} == {}


def test_the_page_is_up_to_date() -> None:
    """Statuses aside. When this fails: `make features`."""
    written = features.rows_of(features.PAGE.read_text(encoding="utf-8"))
    assert written == [row.cells() for row in features.table()]


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        ({}, "not run"),
        ({"tests/a.py::test_one": "skipped"}, "not run"),
        ({"tests/a.py::test_one": "passed", "tests/a.py::test_other": "failed"}, "passed"),
        ({"tests/a.py::test_one": "passed", "tests/b.py::test_any": "failed"}, "failed"),
    ],
)
def test_a_status_is_that_of_the_worst_test(ended: dict[str, str], status: str) -> None:
    row = features.Row(features.Feature("XX-01", "A", "words"), (features.Proof("tests/a.py", "test_one"), features.Proof("tests/b.py")))
    assert row.status(ended) == status
    assert features.Row(row.feature, ()).status(ended) == features.UNTESTED


def test_results_are_kept_by_function_and_over_runs(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "results.json"
    for run in (
        [("a.py::test_x[1]", "call", "failed"), ("a.py::test_x[2]", "call", "passed"), ("a.py::test_y", "setup", "skipped")],
        [("a.py::test_y", "setup", "passed"), ("a.py::test_y", "call", "passed"), ("a.py::test_y", "teardown", "failed")],
    ):
        recorder = results.Recorder(file)
        for nodeid, when, outcome in run:
            report: Any = SimpleNamespace(nodeid=nodeid, when=when, outcome=outcome)
            recorder.pytest_runtest_logreport(report)
        recorder.pytest_sessionfinish()
    assert results.read(file) == json.loads(file.read_text()) == {"a.py::test_x": "failed", "a.py::test_y": "failed"}
    assert [each.name for each in file.parent.iterdir()] == ["results.json"]
