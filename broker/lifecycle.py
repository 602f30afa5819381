"""One life for every process: start, run, drain, close. SIGTERM and SIGINT drain; a second one ends at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, NoReturn, TypeVar

from .exit_codes import FAILED as FAILED  # lifecycle.FAILED: the code to give `Stop.set`
from .exit_codes import INTERRUPTED
from .exit_codes import OK as OK

log = logging.getLogger(__name__)

T = TypeVar("T")
_ENDS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Set when the process shall drain. `reason` says why, for the log; `code` is the exit code."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reason = ""
        self.code = OK

    def set(self, reason: str, code: int = OK) -> None:
        if not self._event.is_set():
            self.reason, self.code = reason, code
            self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        await self._event.wait()

    async def unless(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """The result of `coroutine`, or None when told to stop first."""
        work = asyncio.ensure_future(coroutine)
        stopping = asyncio.ensure_future(self.wait())
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if work.done():
            return work.result()
        work.cancel()
        return None


def run(main: Callable[[Stop], Coroutine[Any, Any, int]], *, loop: str = "") -> int:
    """Run `main` on a new loop (uvloop unless `loop`, or `STREAMFLOW_LOOP`, is "asyncio") until it returns its exit code."""
    # What is loaded by now stays: never look at it again. Requests make and drop many objects, few of them in cycles: collect less often,
    # and what is kept is looked at once more and then left alone, before it is so much that everybody waits (record 34).
    # A worker's thread ends many requests in a row: let the loop send the first ones meanwhile (+15 % in a chain of three).
    sys.setswitchinterval(0.0005)
    gc.freeze()
    gc.set_threshold(20_000, 0, 500)
    with contextlib.suppress(Terminated), asyncio.Runner(loop_factory=_loop_factory(loop)) as runner:
        return runner.run(_main(main))
    return OK


def _loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if (loop or os.environ.get("STREAMFLOW_LOOP")) == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _main(main: Callable[[Stop], Coroutine[Any, Any, int]]) -> int:
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in _ENDS:
        loop.add_signal_handler(number, _signalled, stop, number)
    return await main(stop)


def _signalled(stop: Stop, number: signal.Signals) -> None:
    if stop.is_set():
        log.warning("second %s: ending at once", number.name)
        os._exit(INTERRUPTED)
    stop.set(number.name, INTERRUPTED if number == signal.SIGINT else OK)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """For what keeps the loop's thread for long and has nothing to drain: a signal to stop ends it at once, by an exception in it."""
    before = {number: signal.signal(number, _end) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Terminated(KeyboardInterrupt):
    """SIGTERM's part of `interruptible`: like Ctrl-C nothing that looks after errors takes it for one."""


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
