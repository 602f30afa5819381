"""The embedded broker of a local flow, while the flow runs: started again on its data when it died or lost its disk."""

from __future__ import annotations

import time
from typing import Protocol

from streamflow.broker.errors import Code, StreamflowError

from .assignment import Broker
from .events import Emit, Event, Kind
from .restarts import ended

LOOK_S = 2.0  # how often its log is looked at


class Failing(Protocol):
    """A supervisor, seen from here."""

    def fail(self, text: str, code: Code, error: BaseException | None = None) -> None:
        """End the flow, because of `text`."""


class BrokerWatch:
    def __init__(self, host: Failing, broker: Broker, emit: Emit) -> None:
        self._host = host
        self._broker = broker
        self._emit = emit

    @property
    def due(self) -> float:
        """When to look next, monotonic seconds."""
        return time.monotonic() + LOOK_S

    def look(self) -> None:
        if self._broker.has_lost_its_disk():
            self._start_again("the broker's disk was full, and it stores nothing until it")

    def reap(self) -> None:
        """Called when a child of this process may have ended."""
        if self._broker.pid and ended(self._broker.pid) is not None:
            self._start_again("the broker died: it")

    def _start_again(self, why: str) -> None:
        """At once, on the same port and data: everybody waits for it, and reconnects by itself."""
        self._emit(Event(Kind.RESTART, f"{why} is started again, on its data", "broker"))
        self._broker.kill()
        try:
            self._broker.launch()
            self._broker.wait_ready()
        except StreamflowError as error:
            self._host.fail(f"the broker died and could not be started again: {error}", error.code, error)
