"""Replaces processes of a flow that serves, one after the other: the new one starts, and only when it is ready the old one drains.

The queue makes that enough: what the old one does not take any more, the new one does. For a restart of all (SIGHUP), for changed code,
and for a changed flow file.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from .events import Emit, Event, Kind
from .members import Member, Place, Role


@dataclass(slots=True)
class Step:
    """`old` leaves once `place` is held by a process that is ready. Without `old` one is added, without `place` one is taken away."""

    old: Member | None = None
    place: Place | None = None
    new: Member | None = None


class Host(Protocol):
    """What a rollout needs of its supervisor."""

    def add(self, place: Place) -> Member:
        """Start one more process."""

    def ask_to_leave(self, member: Member) -> None:
        """SIGTERM once, SIGKILL when that takes too long; the member is forgotten when its process is gone."""

    def forget(self, member: Member) -> None:
        """Of a member without a process: never start it again."""

    def come_again(self, member: Member, why: str) -> None:
        """Start a member that died."""


class Rollout:
    """`advance` is called whenever something may have changed, `lost` when a process ended that was not asked to leave."""

    def __init__(self, steps: Iterable[Step], host: Host, emit: Emit, what: str) -> None:
        self._steps = deque(steps)
        self._host = host
        self._emit = emit
        self._what = what
        self._added: list[Member] = []
        self.failed = False

    def advance(self) -> bool:
        """Go as far as is possible now. True when it is over."""
        while self._steps and self._is_done(self._steps[0]):
            self._steps.popleft()
        return not self._steps

    def _is_done(self, step: Step) -> bool:
        old, place = step.old, step.place
        if step.new is None and place is not None:
            if old is not None and not place.handover and old.process is not None:
                self._host.ask_to_leave(old)
                return False
            step.new = self._host.add(place)
            if old is None:
                self._added.append(step.new)
        if step.new is not None and not step.new.ready:
            return False
        if old is not None and old.process is not None:
            self._host.ask_to_leave(old)
            return False
        if old is not None:
            self._host.forget(old)
        if place is not None and place.role is Role.TASK and step.new is not None:
            self._host.forget(step.new)
        return True

    def lost(self, member: Member, why: str) -> bool:
        """Whether the end of `member` is this rollout's business; then it has been dealt with."""
        step = self._steps[0] if self._steps else None
        if step is None or member not in (step.old, step.new):
            return False
        if member is step.new and not member.ready:
            self._give_up(step, member, why)
        return True

    def late(self) -> Member | None:
        """The new process that took too long to become ready."""
        new = self._steps[0].new if self._steps else None
        return new if new is not None and new.late_at is not None and new.late_at <= time.monotonic() else None

    def _give_up(self, step: Step, member: Member, why: str) -> None:
        """What serves goes on; what was to come does not."""
        self.failed = True
        self._steps.clear()
        if step.old is not None and step.place is not None and not step.place.handover:
            self._host.come_again(member, why)  # nobody is left to go on
            return
        goes_on = f"{self._what} is given up, what served before goes on"
        self._emit(Event(Kind.RESTART, f"{member.name} could not start, it {why}: {goes_on}", member.name))
        if member.process is None:
            self._host.forget(member)
        if step.old is not None and step.old.process is None:
            self._host.come_again(step.old, "ended meanwhile")
        for added in self._added:
            if added.process is not None:
                self._host.ask_to_leave(added)
