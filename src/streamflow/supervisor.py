"""The one supervisor of a local flow: starts its processes, restarts what dies, replaces what is to be renewed, drains them in order.

Single-threaded and without an event loop, because it forks: what the workers import is imported here once, and its memory is shared.
Three phases, each with its own file: `start.py`, `renewal.py` once everybody is ready, `drain.py`. `supervise.py` is the process that runs
one for `with Flow()`; `streamflow flow` runs one in its own process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial

from streamflow.broker.errors import Code
from streamflow.broker.exit_codes import INTERRUPTED, OK, exit_code

from .assignment import Plan, Prepared
from .broker_watch import BrokerWatch
from .drain import Drain, alive, end_now, send
from .events import Emit, Event, Kind
from .members import Member, Place, addresses
from .renewal import Renewal
from .report import READY, Said, explain
from .restarts import describe_exit, ended
from .spawn import Child, Process, fork, launcher
from .start import Start
from .watch import Wake, Watch

log = logging.getLogger(__name__)

FAILED_GRACE_S = 2.0


class Supervisor:
    """`run()` blocks until every process is gone and returns the exit code."""

    def __init__(self, prepared: Prepared, emit: Emit, watch: Watch) -> None:
        self._prepared = prepared
        self._emit = emit
        self._watch = watch
        self._broker = None if prepared.broker is None else BrokerWatch(self, prepared.broker, emit)
        self._launch: Callable[[Child], Process] = launcher()
        self._plan = Plan(())
        self._members: list[Member] = []
        self._start = Start(self, prepared, emit)
        self._renewal: Renewal | None = None  # once everybody has been ready
        self._drain: Drain | None = None
        self._code = OK

    @property
    def members(self) -> Sequence[Member]:
        return self._members

    @property
    def plan(self) -> Plan:
        return self._plan

    def run(self) -> int:
        with self._watch:
            try:
                self._start.begin(preload=self._launch is fork)
                self._check_ready()
            except Exception as error:
                self.fail(explain(error), getattr(error, "code", Code.INTERNAL), error)
            try:
                while self._drain is None or alive(self._members):
                    self._turn()
            finally:
                self._plan.release()
                end_now(self._members)
                if self._prepared.broker is not None:
                    self._prepared.broker.stop()
        self._emit(Event(Kind.STOPPED))
        return self._code

    def add(self, place: Place) -> Member:
        member = Member(place)
        self._members.append(member)
        self._begin(member)
        return member

    def _begin(self, member: Member) -> None:
        process = member.start(self._launch, time.monotonic())
        self._watch.add(process.pipe)
        self._emit(Event(Kind.MEMBER, name=member.name, facts={"state": "starting", "pid": process.pid}))

    def _turn(self) -> None:
        """Wait until something happens or is due, and deal with it."""
        for wake in self._watch.wait(self._timeout_s()):
            self._woken(wake)
        now = time.monotonic()
        if self._drain is not None:
            self._drain.advance()
            return
        if self._broker is not None:
            self._broker.look()
        for member in self._members:
            if member.due is not None and member.due <= now:
                self._begin(member)
            elif member.kill_at is not None and member.kill_at <= now:
                member.kill_at = None
                send(member, signal.SIGKILL)
        if self._renewal is not None:
            self._renewal.turn()
        else:
            self._start.turn()

    def _timeout_s(self) -> float | None:
        """Seconds until something is due; None = nothing is."""
        due: list[float | None] = [moment for member in self._members for moment in (member.due, member.kill_at)]
        if self._drain is not None:
            due = [self._drain.kill_at]
        elif self._renewal is not None:
            due.append(self._renewal.due)
        else:
            due.append(self._start.due)
        if self._broker is not None and self._drain is None:
            due.append(self._broker.due)
        times = [moment for moment in due if moment is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _woken(self, wake: Wake | int) -> None:
        if isinstance(wake, int):
            self._hear(next((member for member in self._members if member.process and member.process.pipe == wake), None))
        elif wake is Wake.CHILD:
            self._reap()
        elif wake is Wake.RESTART:
            if self._renewal is not None and self._drain is None:
                self._renewal.restart_all()
        elif self._drain is None:
            self._code = INTERRUPTED if wake is Wake.INTERRUPT else OK
            self._stop(self._plan.grace_s)
        elif wake is not Wake.ORPHAN:
            self._drain.hurry()

    def _hear(self, member: Member | None) -> None:
        if member is None or member.process is None:
            return
        for said in member.hear():
            self._tell(member, said)
        if member.closed:
            self._watch.remove(member.process.pipe)
        self._check_ready()

    def _tell(self, member: Member, said: Said) -> None:
        log.debug("%s: %s %s", member.name, said.state, said.message)
        if said.state == READY:
            self._emit(Event(Kind.MEMBER, name=member.name, facts={"state": READY}))
        if (listening := addresses(said)) is not None:
            self._emit(Event(Kind.GATEWAY, facts={"addresses": listening, "closed": bool(said.facts.get("closed"))}))

    def _check_ready(self) -> None:
        if self._renewal is None and self._drain is None and self._start.is_over():
            self._renewal = Renewal(self, self._emit)

    def fail(self, text: str, code: Code, error: BaseException | None = None, *, detail: str = "") -> None:
        if self._drain is not None or self._watch.has_stop():  # Ctrl-C reaches whom we wait for, too: the next turn stops
            return
        log.debug("start failed: %s", text, exc_info=error)
        self._code = exit_code(code)
        self._emit(Event(Kind.FAILED, text, facts={"code": code.value, "detail": detail}))
        self._stop(FAILED_GRACE_S)

    def _stop(self, grace_s: float) -> None:
        self._emit(Event(Kind.STOPPING, "draining"))
        self._plan.release()
        settle = partial(self.add, self._plan.settle) if self._plan.settle and self._renewal else None
        self._drain = Drain(self._members, self._emit, grace_s, settle)
        self._drain.advance()

    def _reap(self) -> None:
        for member in list(self._members):
            status = ended(member.process.pid) if member.process else None
            if member.process is not None and status is not None:
                self._hear(member)
                self._watch.remove(member.process.pipe)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(member.process.pid, signal.SIGTERM)  # what it started itself
                self._lost(member, status, member.ended(status, time.monotonic()))
        if self._drain is None and self._broker is not None:
            self._broker.reap()

    def _lost(self, member: Member, status: int, lived_s: float) -> None:
        if self._drain is not None:
            return
        why = f"failed: {member.failure.message}" if member.failure else describe_exit(status)
        if member.asked:
            self.forget(member)
            return
        if self._renewal is not None and self._renewal.lost(member, why):
            return
        if member.ready:
            self._check_ready()
        elif self._renewal is not None or member.ever_ready:
            self._come_again(member, why, lived_s)
        else:
            facts = member.failure.facts if member.failure else {}
            self.fail(
                f"{member.name} could not start, it {why}", Code(facts.get("code", Code.INTERNAL)), detail=str(facts.get("detail", ""))
            )

    def _come_again(self, member: Member, why: str, lived_s: float) -> None:
        delay_s = member.backoff.after(lived_s, was_ready=member.was_ready)
        member.due = time.monotonic() + delay_s
        when = f"in {delay_s:.1f} s" if delay_s >= 0.05 else "at once"
        text = f"{member.name} {why} after {lived_s:.1f} s: starting it again {when}"
        self._emit(Event(Kind.RESTART, text, member.name, {"delay_s": delay_s, "lived_s": lived_s}))

    def adopt(self, plan: Plan) -> None:
        self._plan = plan

    def remade_plan(self) -> Plan:
        broker = self._prepared.broker
        return self._prepared.remake_plan(self._prepared.broker_url if broker is None else broker.url)

    def ask_to_leave(self, member: Member) -> None:
        if not member.asked:
            member.asked, member.due = True, None
            member.kill_at = time.monotonic() + self._plan.grace_s
            send(member, signal.SIGTERM)

    def forget(self, member: Member) -> None:
        if member in self._members:
            self._members.remove(member)

    def come_again(self, member: Member, why: str) -> None:
        self._come_again(member, why, time.monotonic() - member.since)


# Python 3.12 and later count OpenBLAS's own threads, which survive a fork by its pthread_atfork handlers.
warnings.filterwarnings("ignore", message=".*use of fork\\(\\) may lead to deadlocks", category=DeprecationWarning)
