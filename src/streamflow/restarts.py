"""That a process ended, how that is told, and when it is started again."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

FIRST_S = 0.1
LONGEST_S = 10.0
READY_LONGEST_S = 1.0
STABLE_S = 30.0
READY_STABLE_S = 3.0


@dataclass(slots=True)
class Backoff:
    """Waiting times of one process: 0.1 s, doubling to 10 s, from the start again once it has lived for 30 s.

    What had become ready is needed, and was probably killed rather than broken: its times, a second at most and from the start again after
    3 s of life, are those between one start and the next. So what has lived for that long comes again at once.
    """

    delay_s: float = 0.0

    def after(self, lived_s: float, *, was_ready: bool = False) -> float:
        """Seconds to wait before the next start of a process that lived `lived_s` seconds."""
        fresh = self.delay_s == 0.0 or lived_s >= (READY_STABLE_S if was_ready else STABLE_S)
        self.delay_s = FIRST_S if fresh else min(2 * self.delay_s, READY_LONGEST_S if was_ready else LONGEST_S)
        return max(0.0, self.delay_s - lived_s) if was_ready else self.delay_s


def describe_exit(status: int) -> str:
    """How a process ended, from its wait status (`os.waitpid`): "exited with code 1", "was killed by SIGKILL"."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def ended(pid: int) -> int | None:
    """Wait status of `pid` when it has ended; it is no zombie any more then."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return status if found else None
