"""One child process as the supervisor knows it: started, ready, died, due again."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .report import FAILED, READY, Said
from .restarts import Backoff
from .spawn import Child, Process

log = logging.getLogger(__name__)


class Role(StrEnum):
    """What a child is for, which decides when it starts, stops and comes again. `STOP_ORDER` is the drain."""

    TASK = "task"  # runs once to its end (provisioning)
    GATEWAY = "gateway"
    SETTLE = "settle"  # started by a drain between gateway and workers; its end means that nothing is left to do
    WORKER = "worker"
    COMPANION = "companion"  # of the workers, which they need to their end


STOP_ORDER = (Role.GATEWAY, Role.SETTLE, Role.WORKER, Role.TASK, Role.COMPANION)


@dataclass(frozen=True, slots=True)
class Place:
    """A child of the plan: `part_of` is what people call it (an executor's name), `ready_s` the seconds it may take, None = no limit.

    `handover`: a successor may start while it still runs. `fingerprint`: places of one name that are equal in it need no new process.
    """

    child: Child
    role: Role
    part_of: str
    ready_s: float | None = 600.0
    handover: bool = True
    fingerprint: object = None


@dataclass(slots=True)
class Member:
    """A place and the process that holds it now."""

    place: Place
    process: Process | None = None
    ready: bool = False  # said so in this life; a task is ready once it ended with 0
    ever_ready: bool = False
    since: float = 0.0  # start of this life, monotonic seconds
    due: float | None = None  # next start
    asked: bool = False  # to leave: it does not come again
    kill_at: float | None = None  # when it was asked: until then it may finish
    message: str = ""
    failure: Said | None = None
    endpoints: list[dict[str, Any]] | None = None  # what a worker said it serves (`EndpointInfo` as dicts)
    was_ready: bool = False  # in the life that ended last
    closed: bool = False  # the child closed its end of the pipe
    backoff: Backoff = field(default_factory=Backoff)
    _rest: bytes = b""

    @property
    def name(self) -> str:
        return self.place.child.name

    @property
    def late_at(self) -> float | None:
        """When this life is too late to become ready."""
        limit = self.place.ready_s
        return None if limit is None or self.ready or self.process is None else self.since + limit

    def start(self, launch: Callable[[Child], Process], now: float) -> Process:
        self.process = launch(self.place.child)
        self.since, self.due = now, None
        self.ready, self.message, self.failure, self.closed, self._rest = False, "", None, False, b""
        return self.process

    def hear(self) -> list[Said]:
        """What the child said since the last call; never blocks."""
        assert self.process is not None
        said = []
        data, self.closed = _read_all(self.process.pipe)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                said.append(Said.from_line(line))
            except (ValueError, KeyError):
                log.warning("%s wrote something else than a report: %.80r", self.name, line)
        for one in said:
            self._note(one)
        return said

    def _note(self, said: Said) -> None:
        self.message = f"{said.state} {said.message}".strip()
        if said.state == READY:
            self.ready = self.ever_ready = True
            self.endpoints = said.facts.get("endpoints", self.endpoints)
        elif said.state == FAILED:
            self.failure = said

    def ended(self, status: int, now: float) -> float:
        """The process is gone and has been waited for. Returns the seconds it lived."""
        assert self.process is not None
        self.process.reaped(os.waitstatus_to_exitcode(status))
        self.process = None
        self.was_ready = self.ready
        self.ready = self.place.role is Role.TASK and status == 0
        self.ever_ready |= self.ready
        return now - self.since

    def describe(self, now: float) -> str:
        """ "loading weights for 12 s", of a member that is not ready."""
        return f"{self.message or 'starting'} for {now - self.since:.0f} s"


def _read_all(pipe: int) -> tuple[bytes, bool]:
    """What lies in a non-blocking pipe, and whether its other end is closed."""
    pieces = []
    try:
        while piece := os.read(pipe, 1 << 16):
            pieces.append(piece)
    except BlockingIOError:
        return b"".join(pieces), False
    return b"".join(pieces), True


def waiting_for(members: Sequence[Member], now: float) -> list[str]:
    """One line per part that is not ready: "encoder: replica 1/2 ready, loading for 12 s"."""
    lines = []
    for part in dict.fromkeys(member.place.part_of for member in members if not member.ready):
        group = [member for member in members if member.place.part_of == part]
        late = next(member for member in group if not member.ready)
        count = f"replica {sum(member.ready for member in group)}/{len(group)} ready, " if late.place.role is Role.WORKER else ""
        lines.append(f"{part}: {count}{late.describe(now)}")
    return lines


def addresses(said: Said) -> dict[str, list[Any]] | None:
    """`{protocol: [host, port]}` when a gateway said where it listens."""
    return said.facts.get("addresses") if said.state == READY else None
