"""Signs of life that user code cannot block: a thread with a loop and a connection of its own.

It says "in progress" for every delivery that takes longer than a part of `ack_wait`, and repeats the worker's announcement. A request
past its deadline is not kept alive: it may go to another replica, which answers DEADLINE_EXCEEDED. Where a call of user code runs for
longer than it may, this thread hands everything back and ends the process. While one holds the interpreter's lock, another process says
what this thread would (`companion.py`).
"""

from __future__ import annotations

import asyncio
import logging
import math
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

from .companion import HAND_BACK, IN_PROGRESS
from .leases import Leases, Message, Terms
from .patience import RETRY_S
from .watchdog import Watchdog

log = logging.getLogger(__name__)

AT_ONCE = 25  # deliveries told of before others may be served
BREATH_S = 0.002


class Keepalive:
    """`hold` and `release` may be called from any thread; `beat` gives what to announce, is called in the keep-alive thread and must only
    read."""

    def __init__(
        self,
        settings: BrokerSettings,
        executor: str,
        ack_wait_s: float,
        beat: Callable[[], Message],
        watchdog: Watchdog | None = None,
        leases: Leases | None = None,
    ) -> None:
        """`leases`: those that another process watches as well."""
        self._settings = settings
        self._name = f"worker {executor}"
        self._beat = beat
        self._watchdog = watchdog
        limit_s = watchdog.limit_s if watchdog is not None else math.inf
        period_s = ack_wait_s / 4
        self._executor = executor
        self._terms = Terms(os.getpid(), period_s, min(period_s, BEAT_S, limit_s) / 2, limit_s)
        self._leases = leases or Leases()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keepalive", daemon=True)

    def start(self) -> None:
        """From now on what is held is kept; before anything is."""
        self._leases.announce(self._beat())
        self._leases.open(self._executor, self._settings.model_dump(mode="json", include=set(BrokerSettings.model_fields)), self._terms)
        self._leases.beat()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def hold(self, ack_subject: str, deadline: float) -> None:
        self._leases.hold(ack_subject, deadline)

    def release(self, ack_subject: str) -> None:
        self._leases.release(ack_subject)

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        connecting = asyncio.ensure_future(self._connect())
        while not connecting.done():
            self._leases.beat()
            await asyncio.wait([connecting], timeout=self._terms.pause_s)
        bus = connecting.result()
        if bus is None:
            self._leases.close()
            return
        next_beat = 0.0
        while not self._stop.is_set():
            if self._watchdog is not None and (endpoint := self._watchdog.look()) is not None:
                await self._give_up(bus, endpoint, self._watchdog.limit_s)
            try:
                await self._extend(bus)
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + BEAT_S
                    message = self._beat()
                    self._leases.announce(message)
                    bus.publish(*message)
            except StreamflowError as error:
                log.debug("keep-alive: %s", error)
            except Exception:  # without this thread everything that takes long is delivered again
                log.exception("keep-alive")
            await asyncio.sleep(self._terms.pause_s)
        self._leases.close()
        if self._watchdog is not None:
            self._watchdog.stop()
        await bus.close()

    async def _extend(self, bus: Bus) -> None:
        """Not all at once: the signs of life of a thousand streams that wait for their readers would hold up everybody's requests."""
        self._leases.beat()
        for number, ack_subject in enumerate(self._leases.due(self._terms.period_s), 1):
            bus.publish(ack_subject, IN_PROGRESS)
            if number % AT_ONCE == 0:
                await asyncio.sleep(BREATH_S)
                self._leases.beat()

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
            self._leases.close()
            for ack_subject in self._leases.held():
                bus.publish(ack_subject, HAND_BACK)
            await bus.flush()
        except StreamflowError as error:
            log.debug("not handed back: %s", error)
        os._exit(FAILED)
