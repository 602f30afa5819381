"""Cancels the requests of HTTP clients that went away, at no cost for requests that are quick."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from streamflow.broker.envelope import Envelope

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
TICK_S = 0.1


class DisconnectWatch:
    """Requests older than one to two ticks get a task that waits for `http.disconnect`; younger ones only two dictionary operations.

    A task and a timer per request would cost more than the whole rest of the gateway's own work on it.
    """

    def __init__(self) -> None:
        self._young: dict[asyncio.Future[Envelope], Receive] = {}
        self._old: dict[asyncio.Future[Envelope], Receive] = {}
        self._watched: dict[asyncio.Future[Envelope], asyncio.Task[None]] = {}
        self._gone: set[asyncio.Future[Envelope]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, future: asyncio.Future[Envelope], receive: Receive) -> None:
        self._young[future] = receive
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def drop(self, future: asyncio.Future[Envelope]) -> bool:
        """Stop watching; True when the client was seen to be gone."""
        if self._young.pop(future, None) is None and self._old.pop(future, None) is None:
            task = self._watched.pop(future, None)
            if task is not None:
                task.cancel()
        if future in self._gone:
            self._gone.discard(future)
            return True
        return False

    def cancel_all(self) -> None:
        """Cancel every open request; their clients are still there."""
        for future in (*self._young, *self._old, *self._watched):
            future.cancel()

    def _tick(self) -> None:
        for future, receive in self._old.items():
            self._watched[future] = asyncio.create_task(self._watch(future, receive))
        self._old, self._young = self._young, {}
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick) if self._old else None

    async def _watch(self, future: asyncio.Future[Envelope], receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone.add(future)
        future.cancel()
