"""docs/features.md: which tests prove which feature, and how they ended (`make features`, after `make test`).

Features are the rows of tests/features.yml. A test names those it proves with `@pytest.mark.feature("FL-06")`, a file with
`pytestmark = pytest.mark.feature("FL-06")`; acceptance scenarios stand in a test's name, `test_t30_t31_...`. The marks are read from the
sources, so that the check of the unit tests needs no second collection of the whole suite.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests import results

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "features.md"
UNTESTED = "no test yet"
HEAD = """# Features and their tests

Written by `make features` from the marks of the tests, `tests/features.yml` and the last results; not edited by hand. Tier A is the main
job, B is expected besides, C is nice to have.

{summary}

| id | feature | tier | tests | status |
|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Feature:
    id: str
    tier: str
    title: str


@dataclass(frozen=True, slots=True, order=True)
class Proof:
    """A test function, or all of a file."""

    file: str
    function: str = ""

    def covers(self, name: str) -> bool:
        file, _, function = name.partition("::")
        return file == self.file and self.function in ("", function)


@dataclass(frozen=True, slots=True)
class Row:
    feature: Feature
    proofs: tuple[Proof, ...]

    def status(self, ended: Mapping[str, str]) -> str:
        """`ended`: result of each test function."""
        if not self.proofs:
            return UNTESTED
        found = {result for name, result in ended.items() if any(proof.covers(name) for proof in self.proofs)}
        return next((result for result in ("failed", "passed") if result in found), "not run")

    def cells(self) -> tuple[str, ...]:
        """All but the status."""
        by_file: dict[str, list[str]] = defaultdict(list)
        for proof in self.proofs:
            by_file[proof.file] += [f"`{proof.function}`"] if proof.function else []
        tests = [f"`{file}`" + (f": {', '.join(functions)}" if functions else "") for file, functions in by_file.items()]
        return self.feature.id, self.feature.title, self.feature.tier, "<br>".join(tests)


def features() -> dict[str, Feature]:
    rows: dict[str, str] = yaml.safe_load((ROOT / "tests" / "features.yml").read_text(encoding="utf-8"))
    return {name: Feature(name, *row.split(" ", 1)) for name, row in rows.items()}


def marks() -> Iterator[tuple[str, Proof]]:
    """Every feature id that a test names, with the test."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        file = path.relative_to(ROOT).as_posix()
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                named = [name for decorator in node.decorator_list for name in _named(decorator)]
                yield from ((name, Proof(file, node.name)) for name in named + _scenarios(node.name))
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
                yield from ((name, Proof(file)) for name in _named(node.value))


def _named(node: ast.expr) -> list[str]:
    """Ids of the `pytest.mark.feature(...)` calls within `node`."""
    calls = [each for each in ast.walk(node) if isinstance(each, ast.Call) and ast.unparse(each.func) == "pytest.mark.feature"]
    return [ast.literal_eval(argument) for call in calls for argument in call.args]


def _scenarios(function: str) -> list[str]:
    """Those that the name of a test begins with."""
    begin = re.match(r"test((?:_t\d\d)+)_", function)
    return [f"T-{number}" for number in re.findall(r"\d\d", begin[1])] if begin else []


def table() -> list[Row]:
    proofs: dict[str, set[Proof]] = defaultdict(set)
    for name, proof in marks():
        proofs[name].add(proof)
    return [Row(feature, tuple(sorted(_shortest(proofs[name])))) for name, feature in features().items()]


def _shortest(proofs: set[Proof]) -> set[Proof]:
    """Without the functions of files that count as a whole."""
    whole = {proof.file for proof in proofs if not proof.function}
    return {proof for proof in proofs if not proof.function or proof.file not in whole}


def page(rows: list[Row], ended: Mapping[str, str]) -> str:
    lines = [f"| {' | '.join((*row.cells(), row.status(ended)))} |\n" for row in rows]
    return HEAD.format(summary=_summary(rows, ended)) + "".join(lines)


def _summary(rows: list[Row], ended: Mapping[str, str]) -> str:
    counts = Counter((row.feature.tier, row.status(ended)) for row in rows)
    tiers = [[f"{count} {status}" for (of, status), count in sorted(counts.items()) if of == tier] for tier in "ABC"]
    return " ".join(f"{tier}: {', '.join(parts)}." for tier, parts in zip("ABC", tiers, strict=True))


def rows_of(text: str) -> list[tuple[str, ...]]:
    """The cells of a written page, without the statuses."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| id ")]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | "))[:-1] for line in lines]


if __name__ == "__main__":
    PAGE.write_text(page(table(), results.read()), encoding="utf-8")
