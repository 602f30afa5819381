"""From raw latencies to the figures every driver reports. Standard library only: peers' interpreters import it too."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest-rank percentile of an ascending sequence; 0.0 when empty."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, int(-(-share * len(ordered) // 1)) - 1))]


def summary(latencies: Sequence[float], errors: int, seconds: float) -> dict[str, float]:
    """`rps` counts good answers only; latencies are in seconds, reported in ms."""
    ordered = sorted(latencies)
    return {
        "requests": len(ordered),
        "errors": errors,
        "rps": max(0, len(ordered) - errors) / seconds if seconds > 0 else 0.0,
        "p50_ms": percentile(ordered, 0.50) * 1e3,
        "p99_ms": percentile(ordered, 0.99) * 1e3,
    }
