"""A process beside workers, which goes on while a call of user code holds the interpreter's lock in one of them.

One for all workers of a supervisor, or for the one of `streamflow worker`. It sleeps, and looks at the beats that each worker's keep-alive
thread writes down (`leases.py`). Only when those of one stop it connects, as that worker's user, and says in its place what it would have
said. It says nothing for a worker that was stopped or has ended, or whose call runs for longer than it may.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from streamflow.broker.announce import BEAT_S
from streamflow.broker.bus import Bus
from streamflow.broker.errors import StreamflowError
from streamflow.broker.settings import BrokerSettings

from .leases import LeaseFile, Leases, Terms
from .watchdog import GRACE_S

log = logging.getLogger(__name__)

IN_PROGRESS = b"+WPI"
HAND_BACK = b'-NAK {"delay": 250000000}'  # ns: at once, it would come back to a process that is about to end
MISSED = 2  # beats without which a worker is held up, rather than late
STAY_S = 60.0  # connected, since such calls come again
CONNECT_S = 2.0  # for one try, after which to see whether the worker is still there
NAME = "sf-companion"
_LOOK_S = 0.25  # while no worker has begun
_BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # a worker that drains still needs it


def watch(_settings: object, *, report: Callable[..., None], leases: int) -> int:
    """The process beside the workers of a supervisor, until SIGTERM. `leases`: descriptor of their file."""
    _settle_in()
    report("ready", "")
    Companion(LeaseFile(leases)).run()
    return 0


@contextmanager
def watched(leases: int | None) -> Iterator[Leases]:
    """A place for the leases of this process, a worker: in the file of its supervisor, or in one of its own with a process beside it.

    Call it before any thread runs.
    """
    if leases is not None:
        yield LeaseFile(leases).claim()
        return
    file = LeaseFile.new()
    ours, theirs = os.pipe()
    pid: int | None = None
    try:
        pid = os.fork()
    except (AttributeError, OSError) as error:  # a container that may have no more processes
        log.warning("no process beside this one, for calls that hold the interpreter's lock for longer than ack_wait: %s", error)
    if pid == 0:
        os.close(theirs)
        _live(Companion(file, ours))
    os.close(ours)
    try:
        yield file.claim()
    finally:
        os.close(theirs)
        if pid is not None:
            _end(pid)


def _end(pid: int) -> None:
    with suppress(ProcessLookupError, ChildProcessError):  # user code has waited for it
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _live(companion: Companion) -> NoReturn:
    """In the forked process: never return into the worker's stack, nor run its exit handlers."""
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        _settle_in()
        companion.run()
    except Exception:
        log.exception("calls that hold the interpreter's lock are not kept alive any more")
    finally:
        os._exit(0)


def _settle_in() -> None:
    """Whatever this process touches is copied into memory of its own: so no collections of what is here, and no pathlib."""
    gc.freeze()
    if sys.platform == "linux":
        descriptor = os.open("/proc/self/comm", os.O_WRONLY)
        os.write(descriptor, NAME.encode())
        os.close(descriptor)


class Companion:
    """`run` returns when the parent of this process is gone: then nobody holds the other end of `pipe`."""

    def __init__(self, file: LeaseFile, pipe: int | None = None) -> None:
        self._file = file
        self._parent = os.getppid()
        self._pause_s = _LOOK_S
        self._pipe = select.poll()
        if pipe is not None:
            self._pipe.register(pipe)
        self._leases: dict[int, Leases] = {}

    def run(self) -> None:
        while not self._is_alone(self._pause_s):
            if any(self._is_held_up(place, terms) for place, terms in self._terms().items()):
                asyncio.run(self._serve())

    def _is_alone(self, wait_s: float = 0.0) -> bool:
        """Whether the parent has ended, after waiting for it. What user code forked there may keep the pipe open."""
        return bool(self._pipe.poll(wait_s * 1000)) or os.getppid() != self._parent

    def _terms(self) -> dict[int, Terms]:
        """Of each place whose worker has begun."""
        for place in self._file.used():
            if place not in self._leases:
                self._leases[place] = self._file.leases(place)
        found = {place: terms for place, leases in self._leases.items() if (terms := leases.terms) is not None}
        self._pause_s = min((terms.pause_s for terms in found.values()), default=_LOOK_S)
        return found

    def _is_held_up(self, place: int, terms: Terms) -> bool:
        """Whether its worker can say nothing, is alive, and no call of it runs for longer than it may."""
        if not MISSED * terms.pause_s < self._leases[place].silent_s < terms.limit_s + GRACE_S:
            return False
        return not self._has_ended(place) and not is_stopped(terms.pid)

    def _has_ended(self, place: int) -> bool:
        if not self._file.lock(place):
            return False
        self._file.unlock(place)
        return True

    async def _serve(self) -> None:
        """Speak for whoever is held up, until nobody has been for `STAY_S`."""
        keeping: dict[int, asyncio.Task[None]] = {}
        while not self._is_alone():
            for place, terms in self._terms().items():
                if place not in keeping and self._is_held_up(place, terms):
                    keeping[place] = asyncio.create_task(self._keep(place, terms))
            keeping = {place: task for place, task in keeping.items() if not task.done()}
            if not keeping:
                return
            await asyncio.wait(keeping.values(), timeout=self._pause_s)
        if keeping:
            await asyncio.wait(keeping.values(), timeout=CONNECT_S)

    async def _keep(self, place: int, terms: Terms) -> None:
        """Speak until the worker has been able to for `STAY_S`, or has ended."""
        leases = self._leases[place]
        executor, settings = leases.who
        log.info("worker %s: a call lets nothing else run; what it has in hand is kept alive from outside", executor)
        bus = await self._connect(place, executor, BrokerSettings.model_validate(settings))
        if bus is None:
            return
        spoke, next_beat = time.monotonic(), 0.0
        while leases.terms == terms and not self._has_ended(place) and time.monotonic() - spoke < STAY_S:
            if self._is_held_up(place, terms):
                spoke = time.monotonic()
                next_beat = _speak(bus, leases, terms.period_s, next_beat)
            await asyncio.sleep(terms.pause_s)
        # What was not kept alive to the end may be with others by now, who are not to lose it.
        if leases.silent_s > terms.limit_s and time.monotonic() - spoke < terms.period_s * 2 and self._file.lock(place):
            _hand_back(bus, leases)
            self._file.unlock(place)
        await bus.close()

    async def _connect(self, place: int, executor: str, settings: BrokerSettings) -> Bus | None:
        """However long the broker is away; None when the worker is gone."""
        settings = settings.model_copy(update={"connect_wait_s": CONNECT_S})
        while not self._has_ended(place):
            try:
                return await Bus.connect(settings, f"worker {executor}-companion")
            except StreamflowError as error:
                log.error("worker %s: what it has in hand is not kept alive: %s", executor, error)
                await asyncio.sleep(self._pause_s)
        return None


def _speak(bus: Bus, leases: Leases, period_s: float, next_beat: float) -> float:
    """What the worker's keep-alive thread says. Returns when to announce the worker next, monotonic seconds."""
    try:
        for ack_subject in leases.due(period_s):
            bus.publish(ack_subject, IN_PROGRESS)
        if time.monotonic() < next_beat or (announcement := leases.announcement) is None:
            return next_beat
        bus.publish(*announcement)
    except StreamflowError as error:
        log.debug("companion: %s", error)
    return time.monotonic() + BEAT_S


def _hand_back(bus: Bus, leases: Leases) -> None:
    """The worker was ended because of `timeout_run_s`, and could not do this itself."""
    try:
        for ack_subject in leases.held():
            bus.publish(ack_subject, HAND_BACK)
    except StreamflowError as error:
        log.debug("not handed back: %s", error)
    leases.close()


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped a process: it is alive, and does nothing."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")  # pid (name) state ...
        except FileNotFoundError:
            return False
        state = stat.rpartition(")")[2].lstrip()
    else:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state[:1] in ("T", "t")
