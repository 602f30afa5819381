"""Signs of life that user code cannot block: a thread with a loop and a connection of its own.

It says "in progress" for every delivery that takes longer than a part of `ack_wait`, and repeats the worker's announcement. A request
past its deadline is not kept alive: it may go to another replica, which answers DEADLINE_EXCEEDED. Where a call of user code runs for
longer than it may, this thread hands everything back and ends the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from streamflow.broker.announce import BEAT_S
from streamflow.broker.bus import Bus
from streamflow.broker.errors import StreamflowError
from streamflow.broker.exit_codes import FAILED
from streamflow.broker.settings import BrokerSettings

from .patience import RETRY_S
from .watchdog import Watchdog

log = logging.getLogger(__name__)

Message = tuple[str, bytes]
_HAND_BACK = b'-NAK {"delay": 250000000}'  # ns: at once, it would come back to this process


class Keepalive:
    """`hold` and `release` may be called from any thread; `beat` is called from the keep-alive thread and must only read."""

    def __init__(
        self, settings: BrokerSettings, name: str, ack_wait_s: float, beat: Callable[[], Message], watchdog: Watchdog | None = None
    ) -> None:
        self._settings = settings
        self._name = name
        self._period_s = ack_wait_s / 4
        self._beat = beat
        self._watchdog = watchdog
        self._held: dict[str, list[float]] = {}  # ack subject -> [held, or extended, since, deadline], Unix seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keepalive", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def hold(self, ack_subject: str, deadline: float) -> None:
        self._held[ack_subject] = [time.time(), deadline]

    def release(self, ack_subject: str) -> None:
        self._held.pop(ack_subject, None)

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        bus = await self._connect()
        if bus is None:
            return
        next_beat = 0.0
        limits = [self._watchdog.limit_s] if self._watchdog is not None else []
        pause_s = min(self._period_s, BEAT_S, *limits) / 2
        while not self._stop.is_set():
            if self._watchdog is not None and (endpoint := self._watchdog.look()) is not None:
                await self._give_up(bus, endpoint, self._watchdog.limit_s)
            try:
                self._extend(bus)
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + BEAT_S
                    bus.publish(*self._beat())
            except StreamflowError as error:
                log.debug("keep-alive: %s", error)
            except Exception:  # without this thread everything that takes long is delivered again
                log.exception("keep-alive")
            await asyncio.sleep(pause_s)
        if self._watchdog is not None:
            self._watchdog.stop()
        await bus.close()

    async def _connect(self) -> Bus | None:
        """However long the broker is away; None when the worker stops."""
        while not self._stop.is_set():
            try:
                return await Bus.connect(self._settings, f"{self._name}-keepalive")
            except StreamflowError as error:
                log.error("no keep-alive yet: %s", error)
                await asyncio.sleep(RETRY_S)
        return None

    async def _give_up(self, bus: Bus, endpoint: str, limit_s: float) -> NoReturn:
        """End this process; what it holds goes to other replicas as soon as its connections are closed."""
        log.critical("%s: %s runs for longer than timeout_run_s = %g s: this worker ends", self._name, endpoint, limit_s)
        try:
            for ack_subject in list(self._held):
                bus.publish(ack_subject, _HAND_BACK)
            await bus.flush()
        except StreamflowError as error:
            log.debug("not handed back: %s", error)
        os._exit(FAILED)

    def _extend(self, bus: Bus) -> None:
        now = time.time()
        for ack_subject, held in list(self._held.items()):
            since, deadline = held
            if now - since >= self._period_s and not 0 < deadline < now:
                bus.publish(ack_subject, b"+WPI")
                held[0] = now
