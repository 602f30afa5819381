"""What `hello digits` reports: how good the hits are, and where the time of a request went. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

LEGEND = (
    "precision@10: share of the ten hits that carry the query's label, mean over all queries.",
    "recall@10: share of all indexed pictures with the query's label that are among its ten hits, mean over all queries."
    " Ten hits cannot hold them all: the ceiling is what perfect hits would score.",
)


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over `queries` queries, each in 0..1."""

    queries: int
    precision: float
    recall: float
    recall_ceiling: float


class Span(NamedTuple):
    """One hop of one request, in Unix seconds; 0.0 = not known."""

    name: str
    enqueued: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds per request in one executor, or in the gateway, which is the whole request. `waited_ms`: median time in the queue."""

    name: str
    requests: int
    median_ms: float
    worst_ms: float
    waited_ms: float | None = None

    @property
    def waited(self) -> str:
        return "" if self.waited_ms is None else f"{self.waited_ms:.1f}"


def quality(answers: Iterable[tuple[str, Sequence[str]]], indexed: Iterable[str], k: int = 10) -> Quality:
    """`answers`: label of a query and those of its hits. `indexed`: all labels in the index. An unknown label counts as 0."""
    stock = Counter(indexed)
    rows = [_row(label, list(hits)[:k], stock[label], k) for label, hits in answers]
    if not rows:
        return Quality(0, 0.0, 0.0, 0.0)
    precision, recall, ceiling = (sum(column) / len(rows) for column in zip(*rows, strict=True))
    return Quality(len(rows), precision, recall, ceiling)


def _row(label: str, hits: list[str], stock: int, k: int) -> tuple[float, float, float]:
    right = hits.count(label)
    return right / k, right / stock if stock else 0.0, min(k, stock) / stock if stock else 0.0


def timings(spans: Iterable[Span]) -> list[Timing]:
    """One row per name, in order of appearance. Hops that never ran are left out."""
    ran: dict[str, list[Span]] = {}
    for span in spans:
        if span.start and span.end >= span.start:
            ran.setdefault(span.name, []).append(span)
    return [_timing(name, rows) for name, rows in ran.items()]


def _timing(name: str, spans: list[Span]) -> Timing:
    taken = [(span.end - span.start) * 1000.0 for span in spans]
    waits = [(span.start - span.enqueued) * 1000.0 for span in spans if span.enqueued]
    return Timing(name, len(spans), median(taken), max(taken), max(0.0, median(waits)) if waits else None)
