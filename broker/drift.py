"""Whether streams and consumers are as their deployer meant them. Nobody but a deployer changes them: others find and tell."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from .bus import Bus
from .errors import NotFound, Unavailable

log = logging.getLogger(__name__)

_NS = 1_000_000_000
_SPANS = ("ack_wait", "max_age", "duplicate_window")  # nanoseconds
_SAME_BY_NAME = ("name", "durable_name", "metadata")


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What is not as in `wanted`, one phrase each: "ack_wait is 5 s, not 60 s". The broker leaves out what is empty."""
    return [
        f"{name} is {_shown(name, found.get(name))}, not {_shown(name, value)}"
        for name, value in wanted.items()
        if name not in _SAME_BY_NAME and (found.get(name) or None) != (value or None)
    ]


def _shown(name: str, value: Any) -> str:
    return f"{(value or 0) / _NS:g} s" if name in _SPANS else repr(value) if isinstance(value, str) else str(value)


async def true_ack_wait_s(bus: Bus, sources: Sequence[tuple[str, str]], wanted_s: float) -> float:
    """The shortest ack wait of the consumers `sources` (stream, durable): how often a worker must say that it lives.

    One whose own setting says otherwise is told, and follows the consumer: to change it is the deployer's business.
    """
    spans = [wanted_s]
    for stream, durable in sources:
        try:
            found = (await bus.api(f"CONSUMER.INFO.{stream}.{durable}"))["config"]
        except (NotFound, Unavailable) as error:
            log.warning("consumer %s of stream %s cannot be looked at: %s", durable, stream, error)
            continue
        for difference in differences({"ack_wait": int(wanted_s * _NS)}, found):
            log.warning(
                "consumer %s of stream %s: %s as in this worker's settings; the consumer's counts, which the deployer sets",
                durable, stream, difference,
            )  # fmt: skip
        spans.append(found["ack_wait"] / _NS)
    return min(spans[1:], default=wanted_s)
