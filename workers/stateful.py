"""A replica of a stateful executor (docs/decisions/0017-stateful-executors.md): it applies the log of writes, all of them and in order.

A write that comes to it is appended to the log and answered with what its application gave. A read runs at once, or, when it wants the
latest state, once all writes that were stored before it are applied.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from itertools import count

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import Envelope, encode
from streamflow.broker.errors import Status, StreamflowError, Unavailable
from streamflow.broker.flow import Node
from streamflow.broker.settings import WorkerSettings

from .executions import Abandoned, Execution, Failure, Outcome
from .flows import Flows
from .invoke import Invoker
from .keeper import Keeper
from .ledger import FORGOTTEN
from .orders import Orders
from .outgoing import Identity, Outgoing
from .patience import RETRY_S, patiently
from .policy import late
from .state import Perform, State, Task
from .write_log import Trimmed, WriteLog, others

log = logging.getLogger(__name__)

Report = Callable[..., None]
REPORT_S = 1.0
WAITS = "the log waits"


class Replica:
    """`start` returns when the state is up to date; `before` is asked about every execution that `concerns` it."""

    def __init__(
        self, bus: Bus, identity: Identity, state: State, *, shards: int, every: int, every_s: float, on_fatal: Callable[[str], None]
    ) -> None:
        self._bus = bus
        self._me = identity
        self._state = state
        self._on_fatal = on_fatal
        self._log = WriteLog(bus, identity.flow, identity.executor, identity.shard or 0)
        self._others = others(bus, identity.flow, identity.executor, identity.shard, shards) if shards > 1 else ()
        self._keeper = Keeper(bus, identity, state, self._log, every=every, every_s=every_s)
        self._orders = Orders(bus, identity, self._keeper, self._reach)
        self._wanted: dict[str, asyncio.Future[Task]] = {}
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, report: Report) -> None:
        """Catch up with the log as it is now, and go on following it. Raises what makes that impossible."""
        report("loading", "its newest snapshot")
        await self._keeper.restore()
        goal = await self._log.last_sequence()
        following = asyncio.create_task(self._follow(), name="write log")
        self._tasks.append(following)
        reached = asyncio.ensure_future(self._reach(goal))
        while not reached.done() and not following.done():
            report("loading", f"its writes: {self._state.position} of {goal} in the log")
            await asyncio.wait((reached, following), timeout=REPORT_S, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            reached.cancel()
            following.result()
        following.add_done_callback(self._followed)
        self._tasks.append(asyncio.create_task(self._keeper.run(), name="snapshots"))
        await self._orders.start()

    def stop(self) -> None:
        self._orders.stop()
        for task in self._tasks:
            task.cancel()

    def concerns(self, execution: Execution) -> bool:
        return execution.spec is not None and (execution.spec.write or execution.envelope.latest)

    async def before(self, execution: Execution) -> Outcome | None:
        """The outcome of a write, `Abandoned` when another shard has it; None for a read, when it may run."""
        assert execution.spec is not None
        if execution.spec.write:
            outcome = await self._write(execution)
            execution.ended = execution.ended or time.time()
            return outcome
        await self._reach(await patiently(WAITS, self._log.last_sequence))
        return None

    # writes

    async def _write(self, execution: Execution) -> Outcome:
        name, remaining_s = self._name(execution.envelope), execution.envelope.remaining_s()
        if remaining_s is not None and remaining_s < 0:
            return late(execution.envelope.endpoint, self._me.executor, -remaining_s)
        known = self._state.ledger.outcome(name)
        if known is not None:
            return known
        if await self._is_elsewhere(execution, name):
            return Abandoned()
        wanted = self._wanted.setdefault(name, asyncio.get_running_loop().create_future())
        try:
            message = encode(_as_logged(execution.envelope))
            await self._reach(await patiently(WAITS, lambda: self._log.append(name, message)))
        except StreamflowError as error:
            return Failure(Status.of(error, executor=self._me.executor))
        finally:
            self._wanted.pop(name, None)
        return _outcome(execution, wanted.result()) if wanted.done() else self._state.ledger.outcome(name) or FORGOTTEN

    def _name(self, envelope: Envelope) -> str:
        """What tells a write from others: the same when it comes again, another where one flow has two names for this executor."""
        is_home = (envelope.flow, envelope.hop) == (self._me.flow, self._me.executor)
        return envelope.ticket if is_home else f"{envelope.ticket}-{subjects.credit_place(envelope.flow, envelope.hop)}"

    async def _is_elsewhere(self, execution: Execution, name: str) -> bool:
        """Whether a write that any shard might have had lies in another one's log: its worker died before it could answer."""
        if (
            not self._others
            or execution.delivery.attempt == 1
            or subjects.owner_of(execution.delivery.subject, self._me.shard) != subjects.ANYBODY
        ):
            return False
        return any([await patiently(WAITS, partial(each.holds, name)) for each in self._others])

    # the log

    async def _follow(self) -> None:
        while True:
            try:
                async with aclosing(self._log.entries(self._state.position)) as entries:
                    async for entry in entries:
                        if entry.restores:
                            await self._keeper.become(entry)
                            self._wake()
                        else:
                            self._applied(entry.name, await self._state.apply(entry))
            except Trimmed as trimmed:
                before = self._state.position
                await self._keeper.restore()
                if self._state.position == before:
                    raise StreamflowError(f"{trimmed}, and no snapshot reaches so far") from trimmed
                self._wake()
            except Unavailable as error:
                log.warning("%s: the log waits: %s", self._me.replica, error)
                await asyncio.sleep(RETRY_S)

    def _applied(self, name: str, task: Task | None) -> None:
        wanted = self._wanted.get(name)
        if wanted is not None and task is not None and not wanted.done():
            wanted.set_result(task)
        self._wake()

    async def _reach(self, sequence: int) -> None:
        """Return when all writes up to place `sequence` are applied."""
        if sequence <= self._state.position:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (sequence, next(self._numbers), reached))
        await reached

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._state.position:
            reached = heapq.heappop(self._waiting)[2]
            if not reached.done():
                reached.set_result(None)

    def _followed(self, following: asyncio.Task[None]) -> None:
        """The log can be followed no more: this replica would fall behind unseen."""
        if not following.cancelled():
            self._on_fatal(f"the log of writes: {following.exception()}")


def replica_of(
    node: Node, settings: WorkerSettings, identity: Identity, bus: Bus, flows: Flows, invoker: Invoker, perform: Perform,
    on_fatal: Callable[[str], None],
) -> Replica:  # fmt: skip
    """The replica that a worker of stateful executor `node` is."""
    state = State(invoker, flows, Outgoing(identity, flows), perform)
    every, every_s = settings.snapshot_every, settings.snapshot_every_s
    return Replica(bus, identity, state, shards=node.shards, every=every, every_s=every_s, on_fatal=on_fatal)


def _as_logged(envelope: Envelope) -> Envelope:
    """A write as the log keeps it: who waits for it, and until when, is left out, since every replica runs it, whenever that is."""
    return envelope._replace(claim=None, deadline=0.0, reply="", record="", keep_s=0.0, latest=False, trace={})


def _outcome(execution: Execution, task: Task) -> Outcome:
    """What the application of `execution`'s write gave. It is the same on every replica and for ever, so there is no other attempt."""
    execution.started, execution.ended = task.started, task.ended
    outcome = task.ended_as.result()
    return replace(outcome, may_retry=False) if isinstance(outcome, Failure) else outcome
