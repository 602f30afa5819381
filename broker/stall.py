"""Streams that take messages and acknowledge none of them.

A nats-server whose disk was full goes on answering everything but publishes, and stays so after there is room again until it is restarted
(2.14.6, 2.15.1: docs/decisions/0018-operations.md). Whoever publishes shall hear "full" within a second, not a time-out.
"""

from __future__ import annotations

from collections.abc import Iterable

STALL_S = 0.4  # the oldest publish of a stream waits for so long, and the broker has answered a ping since
TRY_S = 1.0  # how often one publish goes to a stalled stream, to see whether it takes again


class Stalls:
    """Which streams are stalled, told by the first tokens of their subjects. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._oldest: dict[str, tuple[bytes, float]] = {}  # place -> ticket of its oldest open publish, and since when that is so
        self.stalled: dict[str, float] = {}  # place -> when one publish may go there again

    def suspects(self, waiting: Iterable[tuple[bytes, str]], now: float) -> dict[str, bytes]:
        """Places whose oldest publish has not moved for `STALL_S`, and its ticket. `waiting`: ticket and subject of each, oldest first."""
        oldest: dict[str, tuple[bytes, float]] = {}
        for ticket, subject in waiting:
            place = place_of(subject)
            if place not in oldest:
                before = self._oldest.get(place)
                oldest[place] = before if before is not None and before[0] == ticket else (ticket, now)
        self._oldest = oldest
        return {place: ticket for place, (ticket, since) in oldest.items() if now - since >= STALL_S}

    def add(self, place: str, now: float) -> None:
        self.stalled[place] = now + TRY_S

    def refuses(self, subject: str, now: float) -> bool:
        """Whether to refuse a publish to `subject` at once. One in `TRY_S` is let through."""
        next_try = self.stalled.get(place_of(subject))
        if next_try is None:
            return False
        if now < next_try:
            return True
        self.stalled[place_of(subject)] = now + TRY_S
        return False

    def ended(self, subject: str) -> None:
        """The broker acknowledged a publish to `subject`."""
        self.stalled.pop(place_of(subject), None)

    def clear(self) -> None:
        """Another connection: nothing is known."""
        self._oldest.clear()
        self.stalled.clear()


def place_of(subject: str) -> str:
    """What messages of one stream have in common: prefix, flow and executor or kind."""
    return ".".join(subject.split(".", 3)[:3])
