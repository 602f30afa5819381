"""The way of a delivery into and through a worker: decode, check, run. Each delivery takes it once, top to bottom of this file.

`accept` is entered by the pull loop, `_finish` when the endpoint ended; both run on the loop. What came of it goes to `settle.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from streamflow.broker import blobs, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.dead_letters import UNDECODABLE
from streamflow.broker.envelope import COLUMNS, Envelope, decode
from streamflow.broker.errors import OK, InvalidInput, Overloaded, Status, StreamflowError, Unavailable
from streamflow.broker.pull import Delivery
from streamflow.broker.replies import ReplySender
from streamflow.broker.routing import carries_all
from streamflow.broker.tasks import Tasks

from .batch_runner import runner_for
from .cancelled import Cancelled
from .conditions import Condition
from .flows import Flows
from .forward import Forward
from .invoke import Invoker
from .jobs import Abandoned, Dropped, Failure, Job, Outcome, Output, Paused
from .keepalive import Keepalive
from .outbox import Outbox
from .outgoing import Identity, Outgoing
from .patience import RETRY_S
from .policy import too_deadly, undecodable
from .process import Processor
from .retries import Retries
from .settle import Settler
from .state import Task
from .stateful import Replica
from .streaming import Streams
from .suspects import Suspects

log = logging.getLogger(__name__)

SHARED_DEATHS = 1  # of workers, after which a request stands alone


class Handler:
    """Handles the deliveries of one worker. `idle()` is true when nothing is under way."""

    def __init__(
        self,
        identity: Identity,
        bus: Bus,
        flows: Flows,
        invoker: Invoker,
        replies: ReplySender,
        keepalive: Keepalive,
        *,
        max_deliver: int,
        retries: Retries,
        condition: Condition | None = None,
        on_time: Callable[[float, int], None],
        on_waiting: Callable[[int], None],
        on_fatal: Callable[[str], None],
    ) -> None:
        self.replica: Replica | None = None  # of a stateful executor
        self._me = identity
        self._bus = bus
        self._flows = flows
        self._invoker = invoker
        self._keepalive = keepalive
        self._max_deliver = max_deliver
        self._on_time = on_time
        self._on_fatal = on_fatal
        self._outgoing = Outgoing(identity, flows)
        self._processor = Processor(invoker, identity.executor, identity.replica, condition)
        self._tasks = Tasks(log, "a delivery was left to its redelivery")
        self._runner = runner_for(invoker, self._processor, self._finish, f"executor {identity.executor}")
        place = subjects.credit_place(identity.flow, identity.executor)
        self._streams = Streams(bus, place, self._processor, self._send_part, self._runner.submit, on_waiting)
        self._suspects = Suspects(bus, identity.flow, identity.executor)
        self.outbox = Outbox(bus, replies, self._tasks.spawn)
        self._forward = Forward(identity, bus, flows, self._outgoing, self.outbox, self._tasks.spawn)
        self._settler = Settler(identity, bus, flows, self._outgoing, self._forward, keepalive, self._suspects, retries, self._tasks.spawn)
        self._jobs: dict[str, Job] = {}
        self._suspect_turn = asyncio.Lock()
        self._cancelled = Cancelled()

    def idle(self) -> bool:
        return not self._jobs and not self._tasks

    def hurry(self) -> None:
        """Nothing new will come: batches do not wait to be filled."""
        self._runner.hurry()
        self._forward.leave()

    async def start(self) -> None:
        await self._streams.start()
        await self._forward.start()

    def stop(self) -> None:
        if self.replica is not None:
            self.replica.stop()
        self._streams.stop()
        self._runner.stop()

    # in

    def accept(self, delivery: Delivery) -> None:
        """Take one delivery from the pull loop."""
        try:
            envelope = decode(delivery.payload)
        except InvalidInput as error:
            lost = Envelope(f"{UNDECODABLE}-{delivery.sequence}", self._me.flow, body=delivery.payload)
            self._settler.settle(Job(delivery, lost, None, COLUMNS), undecodable(error, self._me.executor))
            return
        self._keepalive.hold(delivery.ack_subject, envelope.deadline)
        if envelope.claim is not None or delivery.attempt > 1 or not self._flows.knows(envelope.flow_version):
            self._attend(delivery, self._prepare(delivery, envelope))
        else:
            self._start(delivery, envelope)

    async def _prepare(self, delivery: Delivery, envelope: Envelope) -> None:
        """The rare ways in: a body that lies elsewhere, a redelivery, a definition of the flow that is new here."""
        if delivery.attempt == 1 or await self._may_run_beside_others(envelope):
            await self._learn_and_start(delivery, envelope)
            return
        async with self._suspect_turn:  # one at a time, so that a death blames the one that ran
            job = await self._learn_and_start(delivery, envelope, alone=True)
            if job is not None:
                await job.over.wait()

    async def _may_run_beside_others(self, envelope: Envelope) -> bool:
        """Whether this is the first time that a worker died with the request in hand. Most of those that come again then are innocent: they
        run as ever, though not with new ones, and only who was there at a second death stands alone."""
        try:
            return self._max_deliver > SHARED_DEATHS + 1 and await self._suspects.deaths(envelope) < SHARED_DEATHS
        except StreamflowError as error:
            log.debug("request %s: its marks are not read: %s", envelope.request_id, error)
            return False

    async def _learn_and_start(self, delivery: Delivery, envelope: Envelope, *, alone: bool = False) -> Job | None:
        claim = envelope.claim
        try:
            await self._flows.learn(envelope.flow_version, envelope.flow)
            whole = await blobs.check_out(self._bus, envelope) if claim is not None else envelope
            starts = await self._suspects.mark(envelope) if delivery.attempt > 1 else 0
        except (Unavailable, Overloaded) as error:
            log.warning("request %s: %s; it will come again", envelope.request_id, error)
            self._keepalive.release(delivery.ack_subject)
            delivery.nak(delay_s=RETRY_S)
            return None
        except StreamflowError as error:
            self._settler.settle(Job(delivery, envelope, None, COLUMNS), Failure(Status.of(error, executor=self._me.executor)))
            return None
        except Exception as error:
            self._settler.broken(Job(delivery, envelope, None, COLUMNS), error)
            return None
        if starts >= self._max_deliver:
            self._settler.settle(Job(delivery, whole._replace(claim=claim), None, COLUMNS), too_deadly(starts, self._me.executor))
            return None
        return self._start(delivery, whole._replace(claim=claim), alone=alone)

    def _start(self, delivery: Delivery, envelope: Envelope, *, alone: bool = False) -> Job:
        spec = None if envelope.part or envelope.missing else self._invoker.resolve(envelope.endpoint)
        job = Job(delivery, envelope, spec, self._outgoing.form(envelope), alone=alone)
        if self._cancelled and _cancelled_as(envelope) in self._cancelled:
            self._settler.settle(job, Dropped())
            return job
        if envelope.part and envelope.status is not OK:  # an order to bring a blank
            self._settler.settle(job, Dropped())
            return job
        if envelope.missing:
            self._attend(delivery, self._settler.complete_partial(job))
            return job
        self._jobs[delivery.ack_subject] = job
        if self.replica is not None and self.replica.concerns(job):
            job.task = self._attend(delivery, self._replicate(self.replica, job))
        else:
            self._begin(job)
        return job

    def _begin(self, job: Job) -> None:
        envelope = job.envelope
        if envelope.stream and envelope.position >= 0 and envelope.final:
            self._finish(job, Output())  # the end of a stream: nothing to run
        elif self._opens_stream(job):
            job.stream = self._streams.open(job)
            self._attend(job.delivery, self._resume(job)) if job.attempt > 1 else self._run(job)
        else:
            self._run(job)

    async def _replicate(self, replica: Replica, job: Job) -> None:
        """A write, which all replicas apply, or a read that waits for the latest of them."""
        try:
            outcome = await replica.before(job)
        except asyncio.CancelledError:
            if not job.cancelled:
                raise
            outcome = Dropped()
        except Exception as error:
            outcome = self._processor.failure(error, job)
        if outcome is None:
            job.task = None  # this one ends here
            self._begin(job)
            return
        if isinstance(outcome, Abandoned):
            await self._suspects.clear(job.envelope)  # nobody died of it here
            job.delivery.nak(delay_s=RETRY_S)
        self._finish(job, outcome)

    async def perform(self, task: Task) -> Outcome:
        """Run what no delivery brought, where the executor's endpoints run and between them."""
        if task.spec is not None and task.spec.is_async:
            self._finish(task, await self._processor.run_async(task))
        else:
            self._runner.submit(task)
        return await task.ended_as

    def _run(self, job: Job) -> None:
        if job.spec is not None and job.spec.is_async and job.spec.batching is None:
            job.task = self._attend(job.delivery, self._run_async(job))
        else:
            self._runner.submit(job)

    def _opens_stream(self, job: Job) -> bool:
        """Whether the client gets what this endpoint yields one by one. Within a stream, or beside other branches, it is collected."""
        envelope = job.envelope
        if job.spec is None or not job.spec.is_generator or not envelope.stream or envelope.position >= 0 or not envelope.reply:
            return False
        graph = self._flows.graph(envelope.flow_version)
        return carries_all(graph, envelope.hop, envelope.endpoint, envelope.target_executor)

    async def _resume(self, job: Job) -> None:
        """Another attempt at a stream: go on with what its gateway does not have yet."""
        assert job.stream is not None
        documents = await job.stream.learn()
        try:
            if job.delivery.attempt > 1:
                await self._suspects.advanced(job.envelope, documents)
        except StreamflowError as error:
            log.debug("request %s: its progress is not recorded: %s", job.envelope.request_id, error)
        self._run(job)

    async def _run_async(self, job: Job) -> None:
        try:
            outcome = await self._processor.run_async(job)
        except asyncio.CancelledError:
            if not job.cancelled:
                raise
            outcome = Dropped()
        self._finish(job, outcome)

    # out

    def _finish(self, job: Job, outcome: Outcome) -> None:
        """The endpoint ended, with an output or an error; or it is a generator that waits for its reader."""
        if isinstance(job, Task):
            job.end(outcome)
            return
        stream = job.stream
        if stream is not None and isinstance(outcome, Paused):
            stream.park()
            return
        if stream is not None:
            self._streams.close(stream)
        self._jobs.pop(job.delivery.ack_subject, None)
        job.delivery.ran()
        self._on_time(stream.busy_s if stream is not None else job.ended - job.started, self._runner.ahead)
        if job.cancelled:
            outcome = Dropped()
        self._settler.settle(job, outcome)
        if isinstance(outcome, Failure) and outcome.exit_worker:
            self._on_fatal(f"{outcome.status.exception} is in exit_on_exceptions")

    def _send_part(self, job: Job, position: int, output: Output) -> None:
        """One document of a stream, on its way by itself."""
        assert job.stream is not None
        job.over.set()  # it runs, and may for long: the next one that comes again need not wait for its end
        job.stream.storing()
        self._settler.send_part(job, position, output, lambda error: self._part_posted(job, position, error))

    def _part_posted(self, job: Job, position: int, error: StreamflowError | None) -> None:
        assert job.stream is not None
        if error is not None:
            failure = Failure(Status.of(error, executor=self._me.executor))
            is_running = job.delivery.ack_subject in self._jobs
            job.stream.end(failure, position)
            if not is_running:
                self._settler.settle(job, failure)
        job.stream.stored()

    # cancel and tasks

    def cancel(self, name: str) -> None:
        """Nobody wants this request, or job, any more: drop what has not started, tell what runs on the loop."""
        if not name:  # what requests that belong to no job have for one
            return
        self._cancelled.add(name)
        for job in [job for job in self._jobs.values() if name == _cancelled_as(job.envelope)]:
            job.cancelled = True
            if job.stream is not None:
                job.stream.hurry()
            elif job.task is not None:
                job.interrupt(job.task)

    def _attend(self, delivery: Delivery, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that a delivery depends on. Should streamflow itself fail in it, the delivery is kept alive no longer."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                job = self._jobs.pop(delivery.ack_subject, None)
                if job is not None:
                    job.over.set()  # else the next one that stands alone would wait for it for ever
                self._keepalive.release(delivery.ack_subject)
                delivery.leave()

        task = self._tasks.spawn(coroutine)
        task.add_done_callback(ended)
        return task


def _cancelled_as(envelope: Envelope) -> str:
    """The name under which somebody may cancel it: its job's, or of what is not recorded its own. A dead letter that is put back has the id
    of a request whose client may have left."""
    return envelope.job if envelope.record else envelope.request_id
