"""Whether there is room in a stream that has a limit, from what JetStream tells of it (`STREAM.INFO`)."""

from __future__ import annotations

from typing import Any

_FULL = 0.99  # of the limit: what is larger than the mean is refused, or drives others out, before all of it is used


def is_full(info: dict[str, Any]) -> bool:
    """Whether one more message of the mean size, or twice it, has no room."""
    limit: int = info["config"].get("max_bytes", -1)
    used: int = info["state"]["bytes"]
    return limit > 0 and used + 2 * used / max(info["state"]["messages"], 1) >= limit * _FULL


def usage(info: dict[str, Any]) -> str:
    """For people: "511.3 of 512.0 MiB"."""
    return f"{info['state']['bytes'] / 2**20:.1f} of {info['config']['max_bytes'] / 2**20:.1f} MiB"
