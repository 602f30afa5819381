"""How much a worker takes from its queues, and in which order it runs it: online requests first, jobs in what is left.

`Pace` says how many deliveries to hold. `Lanes` lets those of the bulk lane wait in the worker until nothing online is there, with a small
share of their own so that a busy executor's jobs still advance.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from streamflow.broker.pull import Delivery, Pull

from .keepalive import Keepalive

AHEAD_S = 0.005
BULK_AHEAD_S = 0.002
MAX_AHEAD = 256
MAX_LENT = 1000  # streams with slow readers that a worker keeps open beside its slots
BULK_SHARE = 0.1  # bulk requests for each online one that ends, while online ones wait
MAX_SHARES = 2.0
WORTH = 0.1  # of the mean time of an execution: changes below leave the number of deliveries to hold as it is
EXPECT_S = 0.02  # for an online request that is on its way, with room for it here; longer than the broker takes to send it


class Pace:
    """How many deliveries to hold: the free slots, plus about 5 ms of work ahead when the handler is fast.

    Holding more than that hoards: a slow replica would sit on requests that a fast one could run. Where endpoints batch, it is at least
    what fills two batches.
    """

    def __init__(self, concurrency: int, has_async: bool, ahead: int = 0) -> None:
        self.slots = concurrency if has_async else 1
        self._has_async = has_async
        self._ahead = ahead
        self._lent = 0
        self._mean_s = AHEAD_S
        self._told_s = AHEAD_S  # the mean by which `on_change` last heard
        self._on_change: Callable[[], None] = lambda: None

    def bind(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change

    @property
    def capacity(self) -> int:
        """Online requests to hold."""
        return self.slots + self._ahead_within(AHEAD_S) + min(self._lent, MAX_LENT)

    @property
    def bulk_capacity(self) -> int:
        """Requests of jobs to have under way while nothing online is: less, since whatever comes online has to wait for them."""
        return self.slots + self._ahead_within(BULK_AHEAD_S)

    @property
    def spare(self) -> int:
        """Requests of jobs that the executor's thread may have at hand beyond that, so that it need not wait for the loop between two of
        them; whatever comes online goes first."""
        return 0 if self._has_async or self._ahead else 1

    @property
    def bulk_held(self) -> int:
        """Requests of jobs to hold: as many again wait for their turn, and one where the handler is slow, while the broker sends more."""
        return self.bulk_capacity + 1 + self._ahead_within(BULK_AHEAD_S)

    def _ahead_within(self, seconds: float) -> int:
        return max(self._ahead, min(MAX_AHEAD, int(seconds / max(self._mean_s, 1e-6))))

    def ended(self, seconds: float, ahead: int = 0) -> None:
        """One execution took `seconds` from its start; `ahead` others should wait behind it whatever that means."""
        self._mean_s += 0.1 * (max(0.0, seconds) - self._mean_s)
        if ahead != self._ahead or abs(self._mean_s - self._told_s) > WORTH * self._told_s:
            self._ahead = ahead
            self._told_s = self._mean_s
            self._on_change()

    def lend(self, executions: int) -> None:
        """So many more (or, negative, fewer) of those that are held wait for a slow client and need no slot."""
        self._lent += executions
        self._on_change()


class Lanes:
    """The pulls of one worker. Each delivery goes to `accept` once, those of the bulk lane when it is their turn."""

    def __init__(self, accept: Callable[[Delivery], None], pace: Pace, keepalive: Keepalive) -> None:
        self._accept = accept
        self._pace = pace
        self._keepalive = keepalive
        self._online: list[Pull] = []
        self._bulk: Pull | None = None
        self._waiting: deque[Delivery] = deque()
        self._shares = 0.0
        self._more_online = False
        self._is_advancing = False
        self._expected_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def bind(self, online: list[Pull], bulk: Pull) -> None:
        self._online, self._bulk = online, bulk
        self._pace.bind(self._repace)
        self._repace()

    def _repace(self) -> None:
        capacity = self._pace.capacity
        for pull in self._online:
            pull.set_capacity(capacity)
        assert self._bulk is not None
        self._bulk.set_capacity(self._pace.bulk_held)
        self.advance()

    def take_online(self, delivery: Delivery) -> None:
        self._more_online, self._expected_until = delivery.pending > 0, 0.0
        self._accept(delivery)

    def take_bulk(self, delivery: Delivery) -> None:
        self._keepalive.hold(delivery.ack_subject, 0.0)
        self._waiting.append(delivery)
        self.advance()

    def online_settled(self) -> None:
        if self._waiting:
            self._shares = min(self._shares + BULK_SHARE, MAX_SHARES)
            if self._more_online:
                self._expect()
            self.advance()

    def _expect(self) -> None:
        """Keep the place that an online request has left for the next one: more were in the queue when it came, and one is on its way here,
        unless another replica has taken it."""
        self._more_online = False
        self._expected_until = time.monotonic() + EXPECT_S
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EXPECT_S, self._expected)

    def _expected(self) -> None:
        left_s = self._expected_until - time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(left_s, self._expected) if left_s > 0 else None
        self.advance()

    def advance(self) -> None:
        """Let those of the bulk lane run whose turn it is. One that is dropped is settled at once, which calls this again: then the loop
        that is under way goes on."""
        if self._is_advancing:
            return
        self._is_advancing = True
        try:
            while self._waiting and self._may_run():
                delivery = self._waiting.popleft()
                delivery.is_spare = self._under_way > self._pace.bulk_capacity
                self._accept(delivery)
        finally:
            self._is_advancing = False

    @property
    def _under_way(self) -> int:
        """Requests of jobs that run or are next: while the broker stores the outcome of one, another may."""
        assert self._bulk is not None
        return self._bulk.running - len(self._waiting)

    def _may_run(self) -> bool:
        under_way = self._under_way
        online = sum(pull.held for pull in self._online)
        is_free = not self._expected_until or time.monotonic() >= self._expected_until
        if is_free and under_way + online < self._pace.slots:
            return True
        is_alone = is_free and not online
        if under_way >= self._pace.bulk_capacity + (self._pace.spare if is_alone else 0):
            return False
        if is_alone:
            return True
        if self._shares < 1.0:
            return False
        self._shares -= 1.0
        return True

    @property
    def held(self) -> int:
        """Deliveries handed over and not settled yet, in all lanes."""
        return sum(pull.held for pull in self._pulls)

    @property
    def _pulls(self) -> list[Pull]:
        return [*self._online, self._bulk] if self._bulk is not None else self._online

    async def start(self) -> None:
        for pull in self._pulls:
            await pull.start()

    async def stop(self) -> None:
        """Take nothing new; what waits for its turn goes to another replica at once."""
        for pull in self._pulls:
            await pull.stop()
        while self._waiting:
            delivery = self._waiting.popleft()
            self._keepalive.release(delivery.ack_subject)
            delivery.nak()
