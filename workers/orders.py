"""Carries out orders to the state of a stateful executor (broker/state_orders.py): one replica of the shard does, in turn; the others look
on, and take over from one that died.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from streamflow.broker import state_orders, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.errors import InvalidInput, StreamflowError, Unavailable
from streamflow.broker.state_orders import Kind, Progress, State, StateOrder

from .keeper import Keeper
from .outgoing import Identity

log = logging.getLogger(__name__)

LOOK_S = 0.25
MOST = 8  # orders at a time; more are not heard


class Orders:
    """The orders of one replica. `reach` returns when it has applied all up to a place in the log."""

    def __init__(self, bus: Bus, identity: Identity, keeper: Keeper, reach: Callable[[int], Awaitable[None]]) -> None:
        self._bus = bus
        self._me = identity
        self._shard = identity.shard or 0
        self._keeper = keeper
        self._reach = reach
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Hear orders from now on, and take up what others have left. Raises `Unavailable`."""
        await self._bus.listen(subjects.control(self._me.flow, "state"), lambda _s, _r, _h, payload: self._hear(payload))
        for order in await state_orders.unfinished(self._bus, self._me.flow, self._me.executor, self._shard):
            self._take_up(order)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _hear(self, payload: bytes) -> None:
        try:
            order = StateOrder.decode(payload)
        except InvalidInput as error:
            log.warning("%s: %s", self._me.replica, error)
            return
        if order.executor == self._me.executor and len(self._tasks) < MOST:
            self._take_up(order)

    def _take_up(self, order: StateOrder) -> None:
        task = asyncio.create_task(self._carry_out(order), name=f"{order.kind} {order.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, order: StateOrder) -> None:
        """Return when it is carried out, here or by another replica."""
        while True:
            try:
                await state_orders.note_first(self._bus, self._me.flow, order, self._shard)
                await self._keeper.in_turn(partial(self._do, order))
                if not await self._is_open(order):
                    return
            except StreamflowError as error:
                log.warning("%s: the %s waits: %s", self._me.replica, order.kind, error)
            await asyncio.sleep(LOOK_S)

    async def _is_open(self, order: StateOrder) -> bool:
        progress = await state_orders.progress_of(self._bus, self._me.flow, order, self._shard)
        return progress is not None and progress.state is State.RUNNING

    async def _do(self, order: StateOrder) -> None:
        if not await self._is_open(order):
            return
        progress = Progress(State.SUCCEEDED)
        try:
            if order.kind is Kind.SNAPSHOT:
                await self._keeper.take(order.name)
            else:
                await self._reach(await self._keeper.go_back(order.name, order.snapshot))
        except Unavailable:
            raise
        except StreamflowError as error:
            log.error("%s: the %s failed: %s", self._me.replica, order.kind, error)
            progress = Progress(State.FAILED, str(error))
        await state_orders.note(self._bus, self._me.flow, order, self._shard, progress)
