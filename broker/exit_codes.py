"""Exit codes of every process: the command line, a supervisor, a worker, a gateway."""

from __future__ import annotations

from .errors import Code

OK = 0
FAILED = 1
USAGE = 2
NOT_IN_TIME = 3
NO_BROKER = 4
INTERRUPTED = 130

TEXTS = {
    OK: "done",
    FAILED: "failed at run time",
    USAGE: "wrong usage, or a file that cannot work",
    NOT_IN_TIME: "not ready in time",
    NO_BROKER: "broker unreachable",
    INTERRUPTED: "stopped by Ctrl-C",
}

_BY_CODE = {Code.INVALID_ARGUMENT: USAGE, Code.NOT_FOUND: USAGE, Code.DEADLINE_EXCEEDED: NOT_IN_TIME, Code.UNAVAILABLE: NO_BROKER}


def exit_code(code: Code) -> int:
    """The exit code of a start that failed with wire code `code`."""
    return _BY_CODE.get(code, FAILED)
