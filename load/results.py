"""Raw results: one JSON file per run of a profile under `load/results/`, and the medians taken from them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .paths import RESULTS

FORMAT = 1


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one target under one case in one round."""

    profile: str
    case: str
    target: str
    round: int
    figures: dict[str, float]


@dataclass(slots=True)
class Result:
    """One run of one profile."""

    profile: str
    started: str
    commit: str
    machine: dict[str, Any]
    options: dict[str, Any]
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    durability: dict[str, dict[str, str]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def rounds(self, case: str, target: str, metric: str) -> list[float]:
        """The figure of each round, in order; empty when it was not measured."""
        wanted = [sample.figures for sample in self.samples if (sample.case, sample.target) == (case, target)]
        return [figures[metric] for figures in wanted if metric in figures]

    def median(self, case: str, target: str, metric: str) -> float | None:
        rounds = self.rounds(case, target, metric)
        return statistics.median(rounds) if rounds else None

    def ratio(self, case: str, target: str, peer: str, metric: str) -> float | None:
        """Median of `target` over median of `peer`."""
        ours, theirs = self.median(case, target, metric), self.median(case, peer, metric)
        return ours / theirs if ours is not None and theirs else None


def save(result: Result, folder: Path = RESULTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.started.replace(':', '')}-{result.profile}.json"
    path.write_text(json.dumps({"format": FORMAT} | asdict(result), indent=1))
    return path


def load(path: Path) -> Result:
    raw = json.loads(path.read_text())
    if raw.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is not a result file of format {FORMAT}")
    return Result(**(raw | {"samples": [Sample(**sample) for sample in raw["samples"]]}))


def latest(paths: Iterable[Path]) -> dict[str, Result]:
    """The newest result of each profile."""
    results = sorted((load(path) for path in paths), key=lambda result: result.started)
    return {result.profile: result for result in results}
