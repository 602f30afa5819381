"""Feeds jobs into the bulk lane. Every worker has a feeder; the one that holds the lease works, for all jobs of the flow.

A job's inputs stay in the jobs stream and are copied to the first executors little by little, as all that it runs through keep up. So a
job of any size takes little room in a work queue, one paused or cancelled stops at once, and tenants get equal shares, as do the jobs of
each (docs/decisions/0029-fair-share.md).
An input is acked when the broker has the copy. One that is copied twice (a feeder died between the two) runs twice and is recorded once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque

from streamflow.broker import blobs, bucket, jobs, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import EMPTY, Envelope, decode
from streamflow.broker.errors import NotFound, Overloaded, Status, StreamflowError, TooLarge, Unavailable
from streamflow.broker.flow import Graph
from streamflow.broker.hops import first_messages
from streamflow.broker.lease import Lease
from streamflow.broker.pull import Delivery, Pull
from streamflow.broker.routing import Kind, first_steps
from streamflow.broker.turns import Turns

from .outbox import Countdown, Outbox
from .room import Room, Rooms

log = logging.getLogger(__name__)

IDLE_S = 5.0
REFRESH_S = 1.0
TICK_S = 0.05
DRY_TICK_S = 0.01  # while there is too little ahead of the workers
ARRIVAL_S = 0.005
AT_A_STRETCH = 8  # inputs
READS = 10  # of one input, when the broker does not give it
SIGN_OF_LIFE_S = jobs.ACK_WAIT_S / 3


class Feeder:
    """`start` it, and `stop` it before the worker drains."""

    def __init__(self, bus: Bus, flow: str, instance: str, outbox: Outbox) -> None:
        self._bus = bus
        self._flow = flow
        self._outbox = outbox
        self._lease = Lease(bus, flow, "feeder", instance)
        self._feeds: dict[str, _Feed] = {}
        self._turns: Turns[str] = Turns()  # of jobs, by id
        self._rooms = Rooms(bus)
        self._unstored = 0
        self._woken = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._bus.listen(subjects.control(self._flow, "job"), lambda s, r, h, payload: self._woken.set())
        self._task = asyncio.create_task(self._run(), name="feeder")

    async def stop(self) -> None:
        """Leave the jobs to another worker. The flag ends it where a cancellation is swallowed (asyncio.wait_for before 3.12)."""
        self._stopping = True
        self._woken.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._stopping:
            self._woken.clear()
            try:
                if await bucket.keys(self._bus, self._flow, jobs.ACTIVE) and await self._lease.hold():
                    await self._lead()
            except StreamflowError as error:
                log.info("jobs of flow %s wait: %s", self._flow, error)
            except Exception:  # what cannot be read today may be gone tomorrow
                log.exception("jobs of flow %s wait", self._flow)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    await self._woken.wait()

    async def _lead(self) -> None:
        """Feed while there is something to feed and the lease holds."""
        log.info("feeding the jobs of flow %s", self._flow)
        try:
            while not self._stopping and await self._lease.hold():
                self._woken.clear()
                graph = await bucket.load_graph(self._bus, self._flow)
                await self._refresh(await jobs.active(self._bus, self._flow))
                if not self._feeds:
                    return
                for feed in self._feeds.values():
                    feed.rooms = self._rooms.through(graph, feed.job.target_executor)
                limit = time.monotonic() + REFRESH_S
                while time.monotonic() < limit and not self._woken.is_set():
                    await self._top_up(graph)
        finally:
            await self._leave()

    async def _leave(self) -> None:
        for feed in self._feeds.values():
            await feed.stop()
        self._feeds.clear()
        self._rooms.clear()
        with contextlib.suppress(StreamflowError):
            await self._lease.release()

    async def _refresh(self, active: list[jobs.Job]) -> None:
        """Start with jobs that are new, leave those that are fed or cancelled."""
        for job in active:
            if job.id not in self._feeds:
                self._feeds[job.id] = _Feed(self._bus, job)
                await self._feeds[job.id].start()
        for job_id in self._feeds.keys() - {job.id for job in active}:
            await self._feeds.pop(job_id).stop()
        for job_id, feed in [*self._feeds.items()]:
            if await feed.is_over():
                await feed.stop()
                await jobs.finish(self._bus, self._feeds.pop(job_id).job)

    async def _top_up(self, graph: Graph) -> None:
        """For a tick, copy inputs while there is room; those too that are on their way to this feeder when it begins."""
        was_dry = await self._rooms.look(self._unstored)
        limit = time.monotonic() + (DRY_TICK_S if was_dry else TICK_S)
        while (left_s := limit - time.monotonic()) > 0:
            await self._take_turns(graph)
            is_short = any(feed.is_short() for feed in self._feeds.values())
            await asyncio.sleep(min(left_s, ARRIVAL_S) if is_short else left_s)

    async def _take_turns(self, graph: Graph) -> None:
        """Copy what is here and has room, one for each tenant in turn."""
        for feed in self._feeds.values():
            self._ask_for_turn(feed)
        fed = 0
        for job_id in self._turns.take(self._is_room_for):
            chosen = self._feeds.get(job_id)
            if chosen is None or not chosen.has_next() or not await self._feed_next(chosen, graph):
                continue
            self._ask_for_turn(chosen)
            fed += 1
            if not fed % AT_A_STRETCH:
                await asyncio.sleep(0)  # this is a worker's loop: its requests go on in between

    def _ask_for_turn(self, feed: _Feed) -> None:
        if feed.has_next():
            self._turns.want(feed.job.tenant, feed.job.id)

    def _is_room_for(self, job_id: str) -> bool:
        feed = self._feeds.get(job_id)
        return feed is None or not feed.has_next() or all(room.is_left() for room in feed.rooms)

    async def _feed_next(self, feed: _Feed, graph: Graph) -> bool:
        """Copy the next input of a job unless it has its result; False when the broker cannot be asked about it."""
        delivery, is_again = feed.take()
        try:
            envelope = await feed.request(delivery)
            is_recorded = is_again and await self._is_recorded(envelope)
        except (Unavailable, Overloaded) as error:
            log.info("an input of job %s waits: %s", feed.job.id, error)
            delivery.nak(delay_s=IDLE_S)
            return False
        if is_recorded:
            delivery.ack()
        else:
            for room in feed.rooms:
                room.take()
            self._feed(graph, envelope, delivery)
        return True

    async def _is_recorded(self, envelope: Envelope) -> bool:
        """Whether an input that came once more has its result already: a broker that was killed has forgotten the last acks."""
        subject = subjects.result(self._flow, envelope.record)
        return await self._bus.direct_get(subjects.results_stream(self._flow), subject) is not None

    def _feed(self, graph: Graph, envelope: Envelope, delivery: Delivery) -> None:
        self._unstored += 1

        def ended(_error: StreamflowError | None) -> None:
            self._unstored -= 1
            delivery.ack()

        def fail(error: StreamflowError) -> None:
            """It never will go on its way, which is an outcome: without its parameters where they leave no room for it."""
            answer = _failed(envelope, error)
            bare = answer._replace(parameters={})
            self._outbox.answer(answer, lambda error: self._outbox.answer(bare, ended) if isinstance(error, TooLarge) else ended(error))

        def done(error: StreamflowError | None) -> None:
            ended(None) if error is None else fail(error)

        if envelope.status.exception:
            self._outbox.answer(envelope, ended)
            return
        envelope = envelope._replace(flow_version=graph.version)
        try:
            steps = first_steps(graph, envelope.endpoint, envelope.target_executor)
            messages = first_messages(graph, envelope, steps)
        except StreamflowError as error:
            fail(error)
            return
        answers = tuple(step for step in steps if step.kind is Kind.ANSWER and not step.meets)
        left = Countdown(len(messages) + bool(answers), done)
        if answers:
            self._outbox.post(envelope, answers, graph, left)
        for message in messages:
            self._outbox.send(message, left)


class _Feed:
    """One job: what was pulled of it and waits for room."""

    def __init__(self, bus: Bus, job: jobs.Job) -> None:
        self.job = job
        self.rooms: tuple[Room, ...] = ()  # of the executors that it runs through
        self._bus = bus
        self._waiting: deque[Delivery] = deque()
        durable = subjects.job_durable(job.id)
        self._pull = Pull(bus, job.stream, durable, self._waiting.append, capacity=jobs.AHEAD, max_bytes=jobs.AHEAD_BYTES)
        self._allowed = 1.0
        self._counted = self._alive = time.monotonic()
        self._is_paused = False
        self._reached_end = False
        self._last = 0  # stream sequence of the latest input that was taken
        self._behind = 0  # inputs that the broker still had to send then

    async def start(self) -> None:
        await self._pull.start()

    async def stop(self) -> None:
        """What was not fed goes back to the broker for the next feeder."""
        await self._pull.stop()
        while self._waiting:
            self._waiting.popleft().nak()

    def has_next(self) -> bool:
        self._drop_beyond_end()
        if not self._waiting or self._is_paused:
            return False
        return not self.job.rate or self._allowance() >= 1.0

    def is_short(self) -> bool:
        """Whether all that came is fed, and the broker has more."""
        return not self._waiting and self._behind > 0 and not self._is_paused

    def _drop_beyond_end(self) -> None:
        while self._waiting and 0 < self.job.until < self._waiting[0].sequence:
            self._reached_end = True
            self._waiting.popleft().ack()

    def _allowance(self) -> float:
        """Inputs that may go now, at the job's rate and at most a tenth of a second's worth at once."""
        now = time.monotonic()
        self._allowed = min(self._allowed + (now - self._counted) * self.job.rate, max(1.0, self.job.rate * 2 * TICK_S))
        self._counted = now
        return self._allowed

    def take(self) -> tuple[Delivery, bool]:
        """The next input, and whether it was delivered before, here or to another feeder."""
        self._allowed -= 1.0
        delivery = self._waiting.popleft()
        is_again = delivery.attempt > 1 or delivery.sequence <= self._last
        self._last = max(self._last, delivery.sequence)
        self._behind = delivery.pending
        return delivery, is_again

    async def request(self, delivery: Delivery) -> Envelope:
        """The request for one delivery of the job's consumer; with an error status when its input is gone. Raises `Unavailable`,
        `Overloaded`."""
        job = self.job
        name = job.name_of(delivery.subject.decode(), delivery.sequence)
        try:
            stored = decode(delivery.payload if job.source is not jobs.Source.FAILED else await self._input(name))
            if stored.claim is not None and (stored.flow != job.flow or self._is_old(delivery)):  # bodies lie in the flow of their request
                there = await blobs.check_out(self._bus, stored)
                stored = await blobs.check_in(self._bus, there._replace(flow=job.flow), keep_s=self._bus.settings.keep_s)
        except StreamflowError as error:
            if isinstance(error, Unavailable | Overloaded) and delivery.attempt < READS:
                raise
            stored = _failed(Envelope("lost"), error)
        return stored._replace(
            request_id=job.request_id(name), record=job.record(name), flow=job.flow, lane="bulk", hop="", run="", reply="", deadline=0.0,
            client_id="", keep_s=0.0,
        )  # fmt: skip

    def _is_old(self, delivery: Delivery) -> bool:
        """Whether the input may expire before the first executors have come to it; of a failure nobody knows how old its input is."""
        return self.job.source is jobs.Source.FAILED or time.time() - delivery.stored > self._bus.settings.keep_s / 2

    async def _input(self, name: str) -> bytes:
        """The stored input of a failure. Raises `NotFound`, `Unavailable`."""
        flow, origin = self.job.origin_flow, self.job.origin
        if not origin:
            return await self._bus.message(subjects.journal_stream(flow), int(name))
        found = await self._bus.direct_get(subjects.jobs_stream(flow), subjects.job(flow, origin, f"{origin}-{name}"))
        if found is None:
            raise NotFound(f"input {name} of job {origin} is gone: inputs are kept for {self._bus.settings.keep_s:g} s")
        return found

    async def is_over(self) -> bool:
        """Whether nothing is left to feed; on the way, tell the broker that what waits here is not forgotten."""
        info = await jobs.consumer(self._bus, self.job)
        if info is None:
            return True
        self._is_paused = bool(info.get("paused"))
        self._keep_alive()
        return not info["num_ack_pending"] and not self._waiting and (self._reached_end or not info["num_pending"])

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if now - self._alive < SIGN_OF_LIFE_S:
            return
        self._alive = now
        for delivery in self._waiting:
            self._bus.publish(delivery.ack_subject, b"+WPI")


def _failed(envelope: Envelope, error: StreamflowError) -> Envelope:
    return envelope._replace(status=Status.of(error), body=b"", content_type=EMPTY, claim=None)
