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
from .executions import Abandoned, Dropped, Execution, Failure, Outcome, Output, Paused
from .flows import Flows
from .forward import Forward
from .invoke import Invoker
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
        self._executions: dict[str, Execution] = {}
        self._suspect_turn = asyncio.Lock()
        self._cancelled = Cancelled()

    def idle(self) -> bool:
        return not self._executions and not self._tasks

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
            self._settler.settle(Execution(delivery, lost, None, COLUMNS), undecodable(error, self._me.executor))
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
            execution = await self._learn_and_start(delivery, envelope, alone=True)
            if execution is not None:
                await execution.over.wait()

    async def _may_run_beside_others(self, envelope: Envelope) -> bool:
        """Whether this is the first time that a worker died with the request in hand. Most of those that come again then are innocent: they
        run as ever, though not with new ones, and only who was there at a second death stands alone."""
        try:
            return self._max_deliver > SHARED_DEATHS + 1 and await self._suspects.deaths(envelope) < SHARED_DEATHS
        except StreamflowError as error:
            log.debug("request %s: its marks are not read: %s", envelope.request_id, error)
            return False

    async def _learn_and_start(self, delivery: Delivery, envelope: Envelope, *, alone: bool = False) -> Execution | None:
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
            self._settler.settle(Execution(delivery, envelope, None, COLUMNS), Failure(Status.of(error, executor=self._me.executor)))
            return None
        except Exception as error:
            self._settler.broken(Execution(delivery, envelope, None, COLUMNS), error)
            return None
        if starts >= self._max_deliver:
            self._settler.settle(Execution(delivery, whole._replace(claim=claim), None, COLUMNS), too_deadly(starts, self._me.executor))
            return None
        return self._start(delivery, whole._replace(claim=claim), alone=alone)

    def _start(self, delivery: Delivery, envelope: Envelope, *, alone: bool = False) -> Execution:
        spec = None if envelope.part or envelope.missing else self._invoker.resolve(envelope.endpoint)
        execution = Execution(delivery, envelope, spec, self._outgoing.form(envelope), alone=alone)
        if self._cancelled and _cancelled_as(envelope) in self._cancelled:
            self._settler.settle(execution, Dropped())
            return execution
        if envelope.part and envelope.status is not OK:  # an order to bring a blank
            self._settler.settle(execution, Dropped())
            return execution
        if envelope.missing:
            self._attend(delivery, self._settler.complete_partial(execution))
            return execution
        self._executions[delivery.ack_subject] = execution
        if self.replica is not None and self.replica.concerns(execution):
            execution.task = self._attend(delivery, self._replicate(self.replica, execution))
        else:
            self._begin(execution)
        return execution

    def _begin(self, execution: Execution) -> None:
        envelope = execution.envelope
        if envelope.stream and envelope.position >= 0 and envelope.final:
            self._finish(execution, Output())  # the end of a stream: nothing to run
        elif self._opens_stream(execution):
            execution.stream = self._streams.open(execution)
            self._attend(execution.delivery, self._resume(execution)) if execution.attempt > 1 else self._run(execution)
        else:
            self._run(execution)

    async def _replicate(self, replica: Replica, execution: Execution) -> None:
        """A write, which all replicas apply, or a read that waits for the latest of them."""
        try:
            outcome = await replica.before(execution)
        except asyncio.CancelledError:
            if not execution.cancelled:
                raise
            outcome = Dropped()
        except Exception as error:
            outcome = self._processor.failure(error, execution)
        if outcome is None:
            execution.task = None  # this one ends here
            self._begin(execution)
            return
        if isinstance(outcome, Abandoned):
            await self._suspects.clear(execution.envelope)  # nobody died of it here
            execution.delivery.nak(delay_s=RETRY_S)
        self._finish(execution, outcome)

    async def perform(self, task: Task) -> Outcome:
        """Run what no delivery brought, where the executor's endpoints run and between them."""
        if task.spec is not None and task.spec.is_async:
            self._finish(task, await self._processor.run_async(task))
        else:
            self._runner.submit(task)
        return await task.ended_as

    def _run(self, execution: Execution) -> None:
        if execution.spec is not None and execution.spec.is_async and execution.spec.batching is None:
            execution.task = self._attend(execution.delivery, self._run_async(execution))
        else:
            self._runner.submit(execution, is_spare=execution.delivery.is_spare)

    def _opens_stream(self, execution: Execution) -> bool:
        """Whether the client gets what this endpoint yields one by one. Within a stream, or beside other branches, it is collected."""
        envelope = execution.envelope
        if execution.spec is None or not execution.spec.is_generator or not envelope.stream or envelope.position >= 0 or not envelope.reply:
            return False
        graph = self._flows.graph(envelope.flow_version)
        return carries_all(graph, envelope.hop, envelope.endpoint, envelope.target_executor)

    async def _resume(self, execution: Execution) -> None:
        """Another attempt at a stream: go on with what its gateway does not have yet."""
        assert execution.stream is not None
        documents = await execution.stream.learn()
        try:
            if execution.delivery.attempt > 1:
                await self._suspects.advanced(execution.envelope, documents)
        except StreamflowError as error:
            log.debug("request %s: its progress is not recorded: %s", execution.envelope.request_id, error)
        self._run(execution)

    async def _run_async(self, execution: Execution) -> None:
        try:
            outcome = await self._processor.run_async(execution)
        except asyncio.CancelledError:
            if not execution.cancelled:
                raise
            outcome = Dropped()
        self._finish(execution, outcome)

    # out

    def _finish(self, execution: Execution, outcome: Outcome) -> None:
        """The endpoint ended, with an output or an error; or it is a generator that waits for its reader."""
        if isinstance(execution, Task):
            execution.end(outcome)
            return
        stream = execution.stream
        if stream is not None and isinstance(outcome, Paused):
            stream.park()
            return
        if stream is not None:
            self._streams.close(stream)
        self._executions.pop(execution.delivery.ack_subject, None)
        execution.delivery.ran()
        self._on_time(stream.busy_s if stream is not None else execution.ended - execution.started, self._runner.ahead)
        if execution.cancelled:
            outcome = Dropped()
        self._settler.settle(execution, outcome)
        if isinstance(outcome, Failure) and outcome.exit_worker:
            self._on_fatal(f"{outcome.status.exception} is in exit_on_exceptions")

    def _send_part(self, execution: Execution, position: int, output: Output) -> None:
        """One document of a stream, on its way by itself."""
        assert execution.stream is not None
        execution.over.set()  # it runs, and may for long: the next one that comes again need not wait for its end
        execution.stream.storing()
        self._settler.send_part(execution, position, output, lambda error: self._part_posted(execution, position, error))

    def _part_posted(self, execution: Execution, position: int, error: StreamflowError | None) -> None:
        assert execution.stream is not None
        if error is not None:
            failure = Failure(Status.of(error, executor=self._me.executor))
            is_running = execution.delivery.ack_subject in self._executions
            execution.stream.end(failure, position)
            if not is_running:
                self._settler.settle(execution, failure)
        execution.stream.stored()

    # cancel and tasks

    def cancel(self, name: str) -> None:
        """Nobody wants this request, or job, any more: drop what has not started, tell what runs on the loop."""
        if not name:  # what requests that belong to no job have for one
            return
        self._cancelled.add(name)
        for execution in [execution for execution in self._executions.values() if name == _cancelled_as(execution.envelope)]:
            execution.cancelled = True
            if execution.stream is not None:
                execution.stream.hurry()
            elif execution.task is not None:
                execution.interrupt(execution.task)

    def _attend(self, delivery: Delivery, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that a delivery depends on. Should streamflow itself fail in it, the delivery is kept alive no longer."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                execution = self._executions.pop(delivery.ack_subject, None)
                if execution is not None:
                    execution.over.set()  # else the next one that stands alone would wait for it for ever
                self._settler.give_up(delivery)

        task = self._tasks.spawn(coroutine)
        task.add_done_callback(ended)
        return task


def _cancelled_as(envelope: Envelope) -> str:
    """The name under which somebody may cancel it: its job's, or of what is not recorded its own. A dead letter that is put back has the id
    of a request whose client may have left."""
    return envelope.job if envelope.record else envelope.request_id
