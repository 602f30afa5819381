"""Calls of an executor that run for longer than they may (`timeout_run_s`): nothing in a process can end them but its own end.

That is a death like any other: the request comes again, elsewhere, and is quarantined when it has cost too many workers.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count

GRACE_S = 2.0  # behind the limit, for the thread that looks at it


class Watchdog:
    """What runs now. `watch` may be entered in any thread, `look` belongs to the keep-alive's."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._running: dict[int, tuple[float, str]] = {}  # token -> (monotonic seconds, endpoint)
        self._tokens = count()

    @contextmanager
    def watch(self, endpoint: str) -> Iterator[None]:
        """Around one call, or one step of a generator."""
        token = next(self._tokens)
        self._running[token] = (time.monotonic(), endpoint)
        try:
            yield
        finally:
            del self._running[token]

    def look(self) -> str | None:
        """The endpoint of a call above the limit, None when there is none.

        Who does not come back to look, because a call holds the interpreter's lock, is ended by the timer set here, with a traceback.
        """
        faulthandler.dump_traceback_later(self.limit_s + GRACE_S, exit=True)
        since, endpoint = min(list(self._running.values()), default=(time.monotonic(), ""))
        return endpoint if time.monotonic() - since > self.limit_s else None

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()


_NOTHING = nullcontext()


def unwatched(_endpoint: str) -> AbstractContextManager[None]:
    """In the place of `Watchdog.watch` where there is no limit."""
    return _NOTHING
