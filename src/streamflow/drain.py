"""How the processes of a flow leave: gateway first, then workers, each with its time to finish; then whoever is left is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence

from .events import Emit, Event, Kind
from .members import STOP_ORDER, Member, Role

HURRY_GRACE_S = 1.0
UNREADY_GRACE_S = 2.0  # who was never ready has nothing to finish, and may be deaf while it loads


class Drain:
    """One stop. `advance` is called after every end and when `kill_at` (monotonic seconds) has come."""

    def __init__(self, members: Sequence[Member], emit: Emit, grace_s: float, settle: Callable[[], object] | None = None) -> None:
        self._members = members
        self._settle = settle
        self._emit = emit
        self._grace_s = grace_s
        self._given_s = grace_s
        self._left = list(STOP_ORDER)
        self._leaving: list[Role] = []
        self._hurried = False
        self.kill_at = 0.0
        for member in members:
            member.due = None

    def advance(self) -> None:
        """Ask the next role to leave once the one before is gone; kill what stayed too long."""
        while not alive(self._members, self._leaving) and self._left:
            self._leaving = [self._left.pop(0)]
            if self._leaving == [Role.SETTLE] and self._settle is not None:
                self._settle()
                self._set_limit()
            else:
                self._send(signal.SIGTERM)
        late = alive(self._members, self._leaving)
        if late and time.monotonic() >= self.kill_at:
            names = ", ".join(member.name for member in late)
            self._emit(Event(Kind.STOPPING, f"{names} did not end within {self._given_s:.0f} s: killed"))
            self._send(signal.SIGKILL)

    def hurry(self) -> None:
        """Asked a second time: everybody leaves at once. A service that hears SIGTERM again cuts its own drain short."""
        self._emit(Event(Kind.STOPPING, "stopping at once"))
        self._grace_s, self._hurried = HURRY_GRACE_S, True
        self._leaving, self._left = list(STOP_ORDER), []
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        self._set_limit()
        for member in alive(self._members, self._leaving):
            if number != signal.SIGTERM or self._hurried or not member.asked:  # a second SIGTERM would cut short what it still finishes
                send(member, number)

    def _set_limit(self) -> None:
        leaving = alive(self._members, self._leaving)
        waits = any(member.ready or member.place.role is Role.SETTLE for member in leaving)
        self._given_s = self._grace_s if waits else min(self._grace_s, UNREADY_GRACE_S)
        self.kill_at = time.monotonic() + self._given_s


def alive(members: Sequence[Member], roles: Sequence[Role] = STOP_ORDER) -> list[Member]:
    """Members with a process that has not been waited for."""
    return [member for member in members if member.process is not None and member.place.role in roles]


def send(member: Member, number: signal.Signals) -> None:
    """Signal a member; SIGKILL also takes what it started itself."""
    if member.process is not None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGKILL else os.kill)(member.process.pid, number)


def end_now(members: Sequence[Member]) -> None:
    """Kill and wait for whatever is left: the way out of an error in the supervisor itself."""
    for member in alive(members):
        send(member, signal.SIGKILL)
        assert member.process is not None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(member.process.pid, 0)
