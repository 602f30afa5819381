"""What `with Flow()` holds: the supervisor process of a local flow, and the two private pipes to it.

The supervisor and all its children end when this process does, however it ends: the pipe closes with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamflow.broker.errors import Code, RuntimeFailToStart

from .assignment import Assignment
from .events import Event, Kind, StartFailed
from .sealing import seal
from .spawn import with_own_package

if TYPE_CHECKING:
    from .orchestration import StopEvent

log = logging.getLogger(__name__)

FACTORY = "streamflow.plan:prepare"
LOOK_S = 0.2  # how often a foreign stop event is looked at


class LocalRuntime:
    """The processes of one flow on this machine. Made once, started once; `stop` may be called at any time and again.

    `spec` is a `FlowSpec`; `factory` ("module:function", in the supervisor) makes a `Prepared` of what `seal` made of it here.
    """

    def __init__(self, spec: Any, *, factory: str = FACTORY, seal: Callable[[Any], object] = seal) -> None:
        self._spec = spec
        self._factory = factory
        self._seal = seal
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = -1
        self._reader: threading.Thread | None = None
        self._decided = threading.Event()  # ready, failed or gone
        self._failure: StartFailed | None = None
        self._ready = False
        self._waiting: str = ""
        self._addresses: dict[str, tuple[str, int]] = {}
        self._broker_url = ""

    @property
    def gateway_addresses(self) -> dict[str, tuple[str, int]]:
        """Host and port by protocol."""
        return dict(self._addresses)

    @property
    def broker_url(self) -> str:
        return self._broker_url

    @property
    def pid(self) -> int:
        """Of the supervisor; 0 when there is none."""
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        return self._ready and self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float | None = None) -> None:
        """Start everything and wait until it is ready. Raises `RuntimeFailToStart` naming the executor and the cause; nothing runs then."""
        assignment = Assignment.here(self._factory, pickle.dumps(self._seal(self._spec)), getattr(self._spec, "options", None)).to_bytes()
        told = self._launch(assignment)
        self._reader = threading.Thread(target=self._read, args=(told,), name="streamflow-events", daemon=True)
        self._reader.start()
        try:
            decided = self._decided.wait(timeout_s)
        except BaseException:
            self.stop()
            raise
        if self._ready:
            return
        self.stop()
        if self._failure is not None:
            raise self._failure
        if decided:
            raise RuntimeFailToStart("the supervisor of the flow ended before the flow was ready; its last words are above")
        raise StartFailed(
            f"the flow was not ready within {timeout_s:g} s: {self._waiting or 'still starting'}", cause=Code.DEADLINE_EXCEEDED
        )

    def _launch(self, assignment: bytes) -> int:
        """Start the supervisor and hand it the assignment. Returns the descriptor its events come from."""
        take, self._owner = os.pipe()
        told, tell = os.pipe()
        command = [sys.executable, "-m", "streamflow.supervise", str(take), str(tell)]
        # A process group of its own: Ctrl-C reaches this script, which then drains, and not everybody at once.
        self._process = subprocess.Popen(command, pass_fds=(take, tell), process_group=0, stdin=subprocess.DEVNULL, env=with_own_package())
        os.close(take)
        os.close(tell)
        with contextlib.suppress(BrokenPipeError):  # a supervisor that died at once is noticed as the end of its events
            while assignment:
                assignment = assignment[os.write(self._owner, assignment) :]
        return told

    def _read(self, told: int) -> None:
        with os.fdopen(told, "rb") as lines:
            for line in lines:
                try:
                    self._hear(Event.from_line(line))
                except (ValueError, KeyError, TypeError):
                    log.warning("the supervisor wrote something else than an event: %.80r", line)
        self._decided.set()

    def _hear(self, event: Event) -> None:
        facts: dict[str, Any] = event.facts
        if event.kind is Kind.BROKER:
            self._broker_url = facts["url"]
        elif event.kind is Kind.GATEWAY:
            self._addresses |= {protocol: (host, port) for protocol, (host, port) in facts["addresses"].items()}
        elif event.kind is Kind.READY:
            self._ready = True
            self._decided.set()
        elif event.kind is Kind.FAILED:
            self._failure = StartFailed.of(event)
            log.log(logging.ERROR if self._ready else logging.DEBUG, "%s", event.text)
        elif event.kind is Kind.WAITING:
            self._waiting = event.text
            log.info("%s", event.text)
        elif event.kind is Kind.RESTART:
            log.warning("%s", event.text)

    def wait(self, stop_event: StopEvent | None = None) -> None:
        """Block until `stop_event` is set, or the flow ends by itself. Raises `RuntimeFailToStart` in the second case."""
        while self._process is not None and self._process.poll() is None:
            if stop_event is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(LOOK_S)
            elif stop_event.wait(LOOK_S):
                return
        if self._process is not None:
            raise self._failure or RuntimeFailToStart("the supervisor of the flow ended by itself")

    def stop(self) -> None:
        """Drain and end every process; Ctrl-C meanwhile ends them at once. Harmless when nothing runs."""
        process, self._process = self._process, None
        if process is None:
            return
        self._ready = False
        self._say_stop()
        try:
            process.wait()
        except KeyboardInterrupt:
            self._say_stop()
            process.wait()
            raise
        finally:
            os.close(self._owner)
            self._owner = -1
        if self._reader is not None:
            self._reader.join()

    def _say_stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._owner, b"stop\n")
