"""`python -m streamflow.supervise <assignment fd> <event fd>`: the process that runs the supervisor of a `with Flow()`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys

from streamflow.broker.errors import Code
from streamflow.broker.exit_codes import exit_code

from .assignment import Assignment
from .events import Event, Kind
from .report import explain
from .supervisor import Supervisor
from .watch import Watch

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """A pickled assignment comes in by the first of `arguments`, events go out as lines by the second. The pipe's end is the end."""
    owner, told = map(int, arguments)
    assignment = Assignment.read(owner)
    assignment.settle_in()
    os.set_blocking(told, False)

    def emit(event: Event) -> None:
        with contextlib.suppress(OSError):  # the owner is gone, or does not read: neither may stop us
            os.write(told, event.to_line())

    def tell(event: Event) -> None:
        if event.kind is Kind.RELOAD:  # for the person who edits a file: a script shows no log lines below a warning
            log.info("%s", event.text)
        emit(event)

    try:
        prepared = assignment.prepare()
    except Exception as error:
        code = getattr(error, "code", Code.INTERNAL)
        emit(Event(Kind.FAILED, explain(error), facts={"code": code.value}))
        return exit_code(code)
    return Supervisor(prepared, tell, Watch(owner)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
