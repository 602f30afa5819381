"""Signs of life that user code cannot block: a thread with a loop and a connection of its own.

It says "in progress" for every delivery that takes longer than a part of `ack_wait`, and repeats the worker's announcement. A request
past its deadline is not kept alive: it may go to another replica, which answers DEADLINE_EXCEEDED.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from streamflow.broker.announce import BEAT_S
from streamflow.broker.bus import Bus
from streamflow.broker.errors import StreamflowError
from streamflow.broker.settings import BrokerSettings

log = logging.getLogger(__name__)

Message = tuple[str, bytes]


class Keepalive:
    """`hold` and `release` may be called from any thread; `beat` is called from the keep-alive thread and must only read."""

    def __init__(self, settings: BrokerSettings, name: str, ack_wait_s: float, beat: Callable[[], Message]) -> None:
        self._settings = settings
        self._name = name
        self._period_s = ack_wait_s / 4
        self._beat = beat
        self._held: dict[str, tuple[float, float]] = {}  # ack subject -> (held since, deadline), Unix seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keepalive", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def hold(self, ack_subject: str, deadline: float) -> None:
        self._held[ack_subject] = (time.time(), deadline)

    def release(self, ack_subject: str) -> None:
        self._held.pop(ack_subject, None)

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        try:
            bus = await Bus.connect(self._settings, f"{self._name}-keepalive")
        except StreamflowError as error:
            log.error("no keep-alive: %s", error)
            return
        next_beat = 0.0
        pause_s = min(self._period_s, BEAT_S) / 2
        while not self._stop.is_set():
            try:
                self._extend(bus)
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + BEAT_S
                    bus.publish(*self._beat())
            except StreamflowError as error:
                log.debug("keep-alive: %s", error)
            await asyncio.sleep(pause_s)
        await bus.close()

    def _extend(self, bus: Bus) -> None:
        now = time.time()
        for ack_subject, (since, deadline) in list(self._held.items()):
            if now - since >= self._period_s and not 0 < deadline < now:
                bus.publish(ack_subject, b"+WPI")
                if ack_subject in self._held:
                    self._held[ack_subject] = (now, deadline)
