"""The one supervisor of a local flow: starts its processes, restarts what dies, drains them in order, leaves none behind.

Single-threaded and without an event loop, because it forks: what the workers import is imported here once, and its memory is shared.
Start: broker (while modules are imported), gateway, then docarray and the workers. Drain: gateway, workers, broker.
`python -m streamflow.supervisor <job fd> <event fd>` is what `with Flow()` runs; `streamflow flow` runs a `Supervisor` in its own process.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial

from streamflow.broker.errors import Code, StreamflowError
from streamflow.broker.exit_codes import INTERRUPTED, OK, exit_code

from .drain import Drain, alive, end_now
from .events import Emit, Event, Kind
from .job import Broker, Job, Plan, Prepared
from .members import Member, Place, Role, addresses, waiting_for
from .report import READY, Said, explain
from .restarts import describe_exit
from .spawn import Child, Process, fork, launcher
from .watch import Wake, Watch

log = logging.getLogger(__name__)

WAIT_TEXT_S = 3.0  # a start longer than this says what it waits for, and again after as long
FAILED_GRACE_S = 2.0


class Supervisor:
    """`run()` blocks until every process is gone and returns the exit code."""

    def __init__(self, prepared: Prepared, emit: Emit, watch: Watch) -> None:
        self._make_plan = prepared.make_plan
        self._emit = emit
        self._watch = watch
        self._broker = prepared.broker
        self._broker_url = prepared.broker_url
        self._launch: Callable[[Child], Process] = launcher()
        self._plan = Plan(())
        self._members: list[Member] = []
        self._started = self._said_waiting = time.monotonic()
        self._serving = False
        self._drain: Drain | None = None
        self._code = OK

    def run(self) -> int:
        with self._watch:
            try:
                self._start()
                self._check_ready()
            except Exception as error:
                self._fail(explain(error), getattr(error, "code", Code.INTERNAL), error)
            try:
                while self._drain is None or alive(self._members):
                    self._turn()
            finally:
                end_now(self._members)
                if self._broker is not None:
                    self._broker.stop()
        self._emit(Event(Kind.STOPPED))
        return self._code

    def _start(self) -> None:
        if self._broker is not None:
            self._broker.launch()
            self._broker_url = self._broker.url
        self._emit(Event(Kind.BROKER, facts={"url": self._broker_url, "embedded": self._broker is not None}))
        self._plan = self._make_plan(self._broker_url)
        self._preload(self._plan.early)
        self._begin_all(Role.GATEWAY)
        self._preload(self._plan.late)
        if self._broker is not None:
            self._broker.wait_ready()
        self._begin_all(Role.TASK)
        self._begin_all(Role.WORKER)

    def _preload(self, modules: Sequence[str]) -> None:
        """Import and freeze, so that neither the children's collector nor ours moves what they share to pages of their own."""
        if self._launch is not fork:
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
        for place in self._plan.places:
            if place.role is role:
                self._add(place)

    def _add(self, place: Place) -> None:
        self._members.append(Member(place))
        self._begin(self._members[-1])

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
        for member in self._members:
            if member.due is not None and member.due <= now:
                self._begin(member)
        if not self._serving:
            self._watch_start(now)

    def _timeout_s(self) -> float | None:
        """Seconds until something is due; None = nothing is."""
        due: list[float | None] = [member.due for member in self._members]
        if self._drain is not None:
            due = [self._drain.kill_at]
        elif not self._serving:
            due += [self._said_waiting + WAIT_TEXT_S, *(member.late_at for member in self._members)]
        times = [moment for moment in due if moment is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _woken(self, wake: Wake | int) -> None:
        if isinstance(wake, int):
            self._hear(next((member for member in self._members if member.process and member.process.pipe == wake), None))
        elif wake is Wake.CHILD:
            self._reap()
        elif self._drain is None:
            self._code = INTERRUPTED if wake is Wake.INTERRUPT else OK
            self._stop(self._plan.grace_s)
        elif wake is not Wake.ORPHAN:
            self._drain.hurry()

    # start

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
            self._emit(Event(Kind.GATEWAY, facts={"addresses": listening}))

    def _check_ready(self) -> None:
        if self._serving or self._drain or not all(member.ready for member in self._members):
            return
        if self._plan.check is not None:
            try:
                self._plan.check({member.place.part_of: member.endpoints for member in self._members if member.endpoints is not None})
            except StreamflowError as error:
                self._fail(str(error), error.code, error)
                return
        self._serving = True
        self._emit(Event(Kind.READY, facts={"seconds": time.monotonic() - self._started}))

    def _watch_start(self, now: float) -> None:
        late = next((member for member in self._members if member.late_at is not None and member.late_at <= now), None)
        if late is not None:
            state = "; ".join(waiting_for(self._members, now))
            self._fail(f"not ready within {late.place.ready_s:g} s (timeout_ready): {state}", Code.DEADLINE_EXCEEDED)
        elif now >= self._said_waiting + WAIT_TEXT_S:
            self._said_waiting = now
            for line in waiting_for(self._members, now):
                self._emit(Event(Kind.WAITING, line))

    def _fail(self, text: str, code: Code, error: BaseException | None = None, *, detail: str = "") -> None:
        if self._drain is not None:
            return
        log.debug("start failed: %s", text, exc_info=error)
        self._code = exit_code(code)
        self._emit(Event(Kind.FAILED, text, facts={"code": code.value, "detail": detail}))
        self._stop(FAILED_GRACE_S)

    def _stop(self, grace_s: float) -> None:
        self._emit(Event(Kind.STOPPING, "draining"))
        settle = partial(self._add, self._plan.settle) if self._plan.settle and self._serving else None
        self._drain = Drain(self._members, self._emit, grace_s, settle)
        self._drain.advance()

    # ends and restarts

    def _reap(self) -> None:
        for member in self._members:
            status = _ended(member.process.pid) if member.process else None
            if member.process is not None and status is not None:
                self._hear(member)
                self._watch.remove(member.process.pipe)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(member.process.pid, signal.SIGTERM)  # what it started itself
                self._lost(member, status, member.ended(status, time.monotonic()))
        if self._drain is None and self._broker is not None and self._broker.pid and _ended(self._broker.pid) is not None:
            self._broker_lost(self._broker)

    def _lost(self, member: Member, status: int, lived_s: float) -> None:
        if self._drain is not None:
            return
        if member.ready:
            self._check_ready()
            return
        why = f"failed: {member.failure.message}" if member.failure else describe_exit(status)
        if self._serving or member.ever_ready:
            self._come_again(member, why, lived_s)
        else:
            facts = member.failure.facts if member.failure else {}
            self._fail(
                f"{member.name} could not start, it {why}", Code(facts.get("code", Code.INTERNAL)), detail=str(facts.get("detail", ""))
            )

    def _come_again(self, member: Member, why: str, lived_s: float) -> None:
        delay_s = member.backoff.after(lived_s, was_ready=member.was_ready)
        member.due = time.monotonic() + delay_s
        text = f"{member.name} {why} after {lived_s:.1f} s: starting it again in {delay_s:.1f} s"
        self._emit(Event(Kind.RESTART, text, member.name, {"delay_s": delay_s, "lived_s": lived_s}))

    def _broker_lost(self, broker: Broker) -> None:
        """Start the broker again at once, on the same port and data: everybody waits for it, and reconnects by itself."""
        self._emit(Event(Kind.RESTART, "the broker died: starting it again on its data", "broker"))
        broker.kill()
        try:
            broker.launch()
            broker.wait_ready()
        except StreamflowError as error:
            self._fail(f"the broker died and could not be started again: {error}", error.code, error)


def _ended(pid: int) -> int | None:
    """Wait status of `pid` when it has ended; it is no zombie any more then."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return status if found else None


def main(arguments: list[str]) -> int:
    """`python -m streamflow.supervisor <job fd> <event fd>`: a pickled job comes in, events go out as lines. The pipe's end is the end."""
    owner, told = map(int, arguments)
    job = Job.read(owner)
    job.settle_in()
    os.set_blocking(told, False)

    def emit(event: Event) -> None:
        with contextlib.suppress(OSError):  # the owner is gone, or does not read: neither may stop us
            os.write(told, event.to_line())

    try:
        prepared = job.prepare()
    except Exception as error:
        code = getattr(error, "code", Code.INTERNAL)
        emit(Event(Kind.FAILED, explain(error), facts={"code": code.value}))
        return exit_code(code)
    return Supervisor(prepared, emit, Watch(owner)).run()


# Python 3.12 and later count OpenBLAS's own threads, which survive a fork by its pthread_atfork handlers.
warnings.filterwarnings("ignore", message=".*use of fork\\(\\) may lead to deadlocks", category=DeprecationWarning)

if __name__ == "__main__":
    from streamflow.supervisor import main as imported  # the module's classes must not exist twice

    sys.exit(imported(sys.argv[1:]))
