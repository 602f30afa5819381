"""What a child process tells its supervisor, one JSON object a line on a private pipe.

A service is called as `run(settings, report=report)` and says `report("loading", "weights")` or `report("waiting", "for the broker")` as
often as it likes, then once `report("ready")` (the gateway with `addresses={"http": ["127.0.0.1", 8080]}`). A failure needs no call:
whoever called `run` reports what it raises.
"""

from __future__ import annotations

import json
import os
import traceback
from dataclasses import dataclass, field
from typing import Any, Protocol

from streamflow.broker.errors import Code, StreamflowError

READY, FAILED = "ready", "failed"


class Report(Protocol):
    """Callable from any thread; never raises, since a supervisor that is gone must not break the service."""

    def __call__(self, state: str, message: str = "", /, **facts: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Said:
    """One line of a child: `state` is ready, failed, or a word for what it does meanwhile (loading, waiting, draining)."""

    state: str
    message: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_line(cls, line: bytes) -> Said:
        """Raises `ValueError` for what no `PipeReport` wrote."""
        raw = json.loads(line)
        return cls(str(raw["state"]), str(raw.get("message", "")), dict(raw.get("facts", {})))


class PipeReport:
    """A `Report` that writes to file descriptor `fd`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __call__(self, state: str, message: str = "", /, **facts: Any) -> None:
        line = json.dumps({"state": state, "message": message, "facts": facts}, default=str).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError:  # the supervisor is gone; the process learns that by signal
            return


def explain(error: BaseException) -> str:
    """One line for people: our own errors as they are, others with their class and the line that raised."""
    if isinstance(error, StreamflowError):
        return str(error)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if frames else text


def report_failure(report: Report, error: BaseException) -> None:
    """Tell the supervisor why a service ended; the traceback goes along for `-v`."""
    code = error.code if isinstance(error, StreamflowError) else Code.INTERNAL
    report(FAILED, explain(error), code=code.value, detail="".join(traceback.format_exception(error)))
