"""The documents of the repository: their links lead somewhere, and the decisions are listed and say what has changed them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = ROOT / "docs" / "decisions"
RECORDS = {int(path.name[:4]): path for path in sorted(DECISIONS.glob("[0-9]*.md"))}
FOLDERS = (".", "docs", "docs/decisions", "examples", "load")
DOCUMENTS = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md"))]
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"`((?:broker|workers|gateway|src|tests|load|compose|examples|docs)/[\w./-]+)`")


def links(path: Path) -> Iterator[Path]:
    """What `path` links to in this repository, and the files that it names in backticks."""
    text = path.read_text(encoding="utf-8")
    targets = (target.partition("#")[0] for target in LINK.findall(CODE.sub("", text)) if "://" not in target)
    yield from (path.parent / target for target in targets if target)
    yield from (ROOT / name for name in FILE.findall(text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_every_file_that_is_named_exists(document: Path) -> None:
    made = {"load/results", "load/results/FILE.json"}  # by a run
    missing = {str(target.relative_to(ROOT)) for target in links(document) if not target.exists()} - made
    assert not missing


def test_the_index_lists_every_decision_under_its_own_title() -> None:
    rows = re.findall(r"^\| \[(\d+)\]\(([^)]+)\) \| (.+) \|$", (DECISIONS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = {int(number): (name, f"# {number}. {title}") for number, name, title in rows}
    assert listed == {number: (path.name, path.read_text(encoding="utf-8").splitlines()[0]) for number, path in RECORDS.items()}


@pytest.mark.parametrize("number", RECORDS)
def test_a_decision_that_changes_others_is_named_by_them(number: int) -> None:
    status = _status(number)
    for changed in re.findall(r"\d+", status.partition(". ")[2]):
        if int(changed) < number:
            assert re.search(rf"records? (\d+(, | and ))*{number}\b", _status(int(changed))), f"{changed} does not name {number}"


def _status(number: int) -> str:
    line = next(line for line in RECORDS[number].read_text(encoding="utf-8").splitlines() if "Status: " in line)
    return line.partition("Status: ")[2]
