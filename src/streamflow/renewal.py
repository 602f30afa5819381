"""When the processes of a serving flow are replaced, and by what: at SIGHUP, when source files change, when the flow file changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from streamflow.broker.errors import StreamflowError

from .assignment import Plan
from .events import Emit, Event, Kind
from .members import Member, Place, Role
from .reload import LOOK_S, Change, Changes
from .rollout import Host, Rollout, Step

log = logging.getLogger(__name__)

_REPLACED = (Role.COMPANION, Role.WORKER, Role.GATEWAY)  # in this order: when the gateways change, what they need is there


class Renewing(Host, Protocol):
    """A supervisor, seen from here."""

    @property
    def members(self) -> Sequence[Member]: ...

    @property
    def plan(self) -> Plan: ...

    def adopt(self, plan: Plan) -> None:
        """From now on `plan` is the one that is served."""

    def remade_plan(self) -> Plan:
        """The plan of the flow file as it is now. Raises `StreamflowError` with file and line."""


class Renewal:
    """`turn` is called by the supervisor after every event of a flow that serves; one rollout at a time."""

    def __init__(self, host: Renewing, emit: Emit) -> None:
        self._host = host
        self._emit = emit
        self._rollout: Rollout | None = None
        self._then: Callable[[], None] | None = None
        self._changes = Changes(host.plan.sources)
        self._next_look = time.monotonic() + LOOK_S
        self._restart_asked = False

    @property
    def due(self) -> float | None:
        """When to look next, monotonic seconds; None = only when something happens."""
        if self._rollout is not None or self._restart_asked:
            return time.monotonic() + LOOK_S * (self._rollout is not None)
        return self._next_look if self._changes.sources else None

    def restart_all(self) -> None:
        """Replace every worker, then every gateway, by a fresh process of its own kind."""
        self._restart_asked = True

    def lost(self, member: Member, why: str) -> bool:
        return self._rollout is not None and self._rollout.lost(member, why)

    def turn(self) -> None:
        if self._rollout is not None:
            self._go_on(self._rollout)
        elif self._restart_asked:
            self._restart_asked = False
            self._emit(Event(Kind.RELOAD, "restarting one process after the other"))
            self._begin("restart", self._steps(lambda member: True), None)
        elif self._changes.sources and time.monotonic() >= self._next_look:
            self._look()

    def _begin(self, what: str, steps: Iterator[Step], then: Callable[[], None] | None) -> None:
        self._rollout = Rollout(list(steps), self._host, self._emit, f"the {what}")
        self._then = then
        self._go_on(self._rollout)

    def _go_on(self, rollout: Rollout) -> None:
        if (late := rollout.late()) is not None:
            self._host.ask_to_leave(late)
            rollout.lost(late, f"was not ready within {late.place.ready_s:g} s (timeout_ready)")
        if not rollout.advance():
            return
        self._rollout, then, self._then = None, self._then, None
        if rollout.failed:
            return
        if then is not None:
            then()
        self._check()
        self._emit(Event(Kind.RELOAD, "everything new is ready"))

    def _check(self) -> None:
        """Whether the executors still fit each other. They serve already, so this only warns."""
        offered = {member.place.part_of: member.endpoints for member in self._host.members if member.endpoints is not None}
        try:
            if self._host.plan.check is not None:
                self._host.plan.check(offered)
        except StreamflowError as error:
            self._emit(Event(Kind.RESTART, str(error)))

    def _look(self) -> None:
        self._next_look = time.monotonic() + LOOK_S
        changes = self._changes.look()
        flow = next((change for change in changes if not change.sources.part_of), None)
        if flow is not None:
            self._replan(flow, {change.sources.part_of for change in changes})
        elif changes:
            for change in changes:
                self._emit(Event(Kind.RELOAD, _told(change), change.sources.part_of))
            parts = {change.sources.part_of for change in changes}
            self._begin("reload", self._steps(lambda member: member.place.part_of in parts), None)

    def _replan(self, change: Change, parts: set[str]) -> None:
        name = self._host.plan.flow_file or change.files[0]
        self._emit(Event(Kind.RELOAD, f"change in {self._host.plan.kind} YAML {name} observed, restarting {self._host.plan.kind}"))
        try:
            plan = self._host.remade_plan()
        except StreamflowError as error:
            self._emit(Event(Kind.RESTART, f"{error}; what served before goes on"))
            return

        def adopt() -> None:
            self._host.adopt(plan)
            self._changes.replace(plan.sources)

        self._begin("reload", self._to(plan, parts), adopt)

    def _steps(self, wanted: Callable[[Member], bool]) -> Iterator[Step]:
        for role in _REPLACED:
            yield from (Step(each, each.place) for each in self._host.members if each.place.role is role and wanted(each))

    def _to(self, plan: Plan, changed: set[str]) -> Iterator[Step]:
        """From what runs to `plan`: what it needs on the broker, its workers, then clients' requests, then an end to what it has not."""
        before = {member.name: member for member in self._host.members if member.place.role in _REPLACED}
        if plan.stage is not None:
            yield Step(None, plan.stage)
        for role in (Role.COMPANION, Role.WORKER, Role.TASK, Role.GATEWAY):
            for place in plan.places:
                if place.role is role:
                    yield from _from(before.pop(place.child.name, None), place, changed)
        gone = frozenset(member.place.part_of for member in before.values()) - {place.part_of for place in plan.places}
        if gone and self._host.plan.emptied is not None:
            yield Step(None, self._host.plan.emptied(gone))
        yield from (Step(member) for member in before.values())


def _from(old: Member | None, place: Place, changed: set[str]) -> Iterator[Step]:
    if old is None or old.place.fingerprint != place.fingerprint or place.part_of in changed:
        yield Step(old, place)
    else:
        old.place = place


def _told(change: Change) -> str:
    """Jina's words for it."""
    if change.config is not None:
        return f"change in Executor configuration YAML {change.config} observed, restarting Executor deployment"
    return f"{change.sources.part_of}: detected changes in: {list(change.files)}. Refreshing the Executor"
