"""The start of a local flow: broker (while modules are imported), gateway, then docarray and the workers, until everybody is ready."""

from __future__ import annotations

import contextlib
import gc
import importlib
import time
from collections.abc import Sequence
from typing import Protocol

from streamflow.broker.errors import Code, StreamflowError

from .assignment import Plan, Prepared
from .events import Emit, Event, Kind
from .members import Member, Place, Role, waiting_for

WAIT_TEXT_S = 3.0  # a start longer than this says what it waits for, and again after as long


class Starting(Protocol):
    """A supervisor, seen from here."""

    @property
    def members(self) -> Sequence[Member]: ...

    @property
    def plan(self) -> Plan: ...

    def adopt(self, plan: Plan) -> None:
        """From now on `plan` is the one that is served."""

    def add(self, place: Place) -> Member:
        """Start one more process."""

    def fail(self, text: str, code: Code, error: BaseException | None = None) -> None:
        """End the flow, because of `text`."""


class Start:
    """One start. `begin` raises what goes wrong in the supervisor itself; `turn` is called when something happened or `due` has come."""

    def __init__(self, host: Starting, prepared: Prepared, emit: Emit) -> None:
        self._host = host
        self._prepared = prepared
        self._emit = emit
        self._since = self._said_waiting = time.monotonic()

    def begin(self, *, preload: bool) -> None:
        """Start everybody; `preload`: import here what the processes, which are forked, will need."""
        broker, url = self._prepared.broker, self._prepared.broker_url
        if broker is not None:
            broker.launch()
            url = broker.url
        self._emit(Event(Kind.BROKER, facts={"url": url, "embedded": broker is not None}))
        plan = self._prepared.make_plan(url)
        self._host.adopt(plan)
        self._preload(plan.early if preload else ())
        self._begin_all(Role.GATEWAY)
        self._preload(plan.late if preload else ())
        if broker is not None:
            broker.wait_ready()
        self._begin_all(Role.TASK)
        self._begin_all(Role.WORKER)
        self._begin_all(Role.COMPANION)  # last: it shares more of the memory that starting the others has changed

    def _preload(self, modules: Sequence[str]) -> None:
        """Import and freeze, so that neither the children's collector nor ours moves what they share to pages of their own."""
        if not modules:
            return
        gc.disable()
        for module in modules:
            # The child imports it again and says what is wrong, under its own name.
            with contextlib.suppress(Exception):
                importlib.import_module(module)
        gc.enable()
        gc.collect()
        gc.freeze()

    def _begin_all(self, role: Role) -> None:
        for place in self._host.plan.places:
            if place.role is role:
                self._host.add(place)

    def is_over(self) -> bool:
        """Whether everybody is ready and the executors fit each other; when they do not, the flow ends."""
        if not all(member.ready for member in self._host.members):
            return False
        offered = {member.place.part_of: member.endpoints for member in self._host.members if member.endpoints is not None}
        try:
            if self._host.plan.check is not None:
                self._host.plan.check(offered)
        except StreamflowError as error:
            self._host.fail(str(error), error.code, error)
            return False
        self._emit(Event(Kind.READY, facts={"seconds": time.monotonic() - self._since}))
        return True

    @property
    def due(self) -> float:
        """When to look next, monotonic seconds."""
        limits = [member.late_at for member in self._host.members if member.late_at is not None]
        return min([self._said_waiting + WAIT_TEXT_S, *limits])

    def turn(self) -> None:
        """End a flow that takes too long to start, and say what is waited for."""
        now = time.monotonic()
        late = next((member for member in self._host.members if member.late_at is not None and member.late_at <= now), None)
        if late is not None:
            state = "; ".join(waiting_for(self._host.members, now))
            self._host.fail(f"not ready within {late.place.ready_s:g} s (timeout_ready): {state}", Code.DEADLINE_EXCEEDED)
        elif now >= self._said_waiting + WAIT_TEXT_S:
            self._said_waiting = now
            for line in waiting_for(self._host.members, now):
                self._emit(Event(Kind.WAITING, line))
