"""The path of one delivery through a worker: decode, check, run, publish, settle. Each delivery takes it once, top to bottom of this file.

`accept` is entered by the pull loop, `_finish` when the endpoint ended; both run on the loop. Nothing else settles a delivery.
Order: the result is with the broker (publish-ack of every next hop, or the answer sent on the same connection) before the input is acked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from streamflow.broker import blobs, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import COLUMNS, Envelope, Hop, decode, encode
from streamflow.broker.errors import OK, InvalidInput, Overloaded, Status, StreamflowError, Unavailable
from streamflow.broker.flow import GATEWAY, Graph
from streamflow.broker.pull import Delivery
from streamflow.broker.replies import ReplySender
from streamflow.broker.routing import Kind, Step, carries_all, next_steps

from .batch_runner import runner_for
from .conditions import Condition
from .flows import Flows
from .invoke import Invoker
from .jobs import ANY, Dropped, Failure, Job, Outcome, Output, Paused
from .keepalive import Keepalive
from .outbox import RETRY_S, Done, Outbox
from .policy import Settle, judge, too_deadly, undecodable
from .process import Processor
from .reducer import Reducer
from .streaming import Streams
from .suspects import Suspects

log = logging.getLogger(__name__)

CANCELLED_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is: executor name in the flow, and the replica's name in results and trails ("encoder/rep-0")."""

    flow: str
    executor: str
    replica: str
    instance: str
    shard: int | None = None  # None = the executor is not sharded


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
        condition: Condition | None = None,
        on_time: Callable[[float, int], None],
        on_waiting: Callable[[int], None],
        on_fatal: Callable[[str], None],
    ) -> None:
        self._me = identity
        self._bus = bus
        self._flows = flows
        self._invoker = invoker
        self._replies = replies
        self._keepalive = keepalive
        self._max_deliver = max_deliver
        self._on_time = on_time
        self._on_fatal = on_fatal
        self._outbox = Outbox(bus, replies, self._spawn)
        self._reducer = Reducer(bus)
        self._processor = Processor(invoker, identity.executor, identity.replica, condition)
        self._runner = runner_for(invoker, self._processor, self._finish, f"executor {identity.executor}")
        self._streams = Streams(bus, self._processor, self._send_part, self._runner.submit, on_waiting)
        self._suspects = Suspects(bus, identity.flow, identity.executor)
        self._tasks: set[asyncio.Task[None]] = set()
        self._jobs: dict[str, Job] = {}
        self._suspect_turn = asyncio.Lock()
        self._cancelled: OrderedDict[str, None] = OrderedDict()

    def idle(self) -> bool:
        return not self._jobs and not self._tasks

    def hurry(self) -> None:
        """Nothing new will come: batches do not wait to be filled."""
        self._runner.hurry()

    async def start(self) -> None:
        await self._streams.start()

    def stop(self) -> None:
        self._streams.stop()
        self._runner.stop()

    # in

    def accept(self, delivery: Delivery) -> None:
        """Take one delivery from the pull loop."""
        try:
            envelope = decode(delivery.payload)
        except InvalidInput as error:
            lost = Envelope(f"undecodable-{delivery.sequence}", self._me.flow, body=delivery.payload)
            self._settle(Job(delivery, lost, None, COLUMNS), undecodable(error, self._me.executor))
            return
        self._keepalive.hold(delivery.ack_subject, envelope.deadline)
        if envelope.claim is not None or delivery.attempt > 1 or not self._flows.knows(envelope.flow_version):
            self._spawn(self._prepare(delivery, envelope))
        else:
            self._start(delivery, envelope)

    async def _prepare(self, delivery: Delivery, envelope: Envelope) -> None:
        """The rare ways in: a body that lies elsewhere, a redelivery, a definition of the flow that is new here."""
        if delivery.attempt == 1:
            await self._learn_and_start(delivery, envelope)
            return
        async with self._suspect_turn:  # one at a time, so that a death blames the one that ran
            job = await self._learn_and_start(delivery, envelope)
            if job is not None:
                await job.over.wait()

    async def _learn_and_start(self, delivery: Delivery, envelope: Envelope) -> Job | None:
        claim = envelope.claim
        try:
            await self._flows.learn(envelope.flow_version, envelope.flow)
            whole = await blobs.check_out(self._bus, envelope) if claim is not None else envelope
            starts = await self._suspects.mark(envelope) if delivery.attempt > 1 else 0
        except Unavailable as error:
            log.warning("request %s: %s; it will come again", envelope.request_id, error)
            self._keepalive.release(delivery.ack_subject)
            delivery.nak(delay_s=RETRY_S)
            return None
        except StreamflowError as error:
            self._settle(Job(delivery, envelope, None, COLUMNS), Failure(Status.of(error, executor=self._me.executor)))
            return None
        if starts >= self._max_deliver:
            self._settle(Job(delivery, envelope, None, COLUMNS), too_deadly(starts, self._me.executor))
            return None
        return self._start(delivery, whole._replace(claim=claim))

    def _start(self, delivery: Delivery, envelope: Envelope) -> Job:
        spec = None if envelope.part or envelope.missing else self._invoker.resolve(envelope.endpoint)
        job = Job(delivery, envelope, spec, self._form_of_output(envelope))
        if envelope.request_id in self._cancelled:
            self._settle(job, Dropped())
            return job
        if envelope.missing:
            self._spawn(self._complete_partial(job))
            return job
        self._jobs[delivery.ack_subject] = job
        if envelope.stream and envelope.position >= 0 and envelope.final:
            self._finish(job, Output())  # the end of a stream: nothing to run
        elif self._opens_stream(job):
            job.stream = self._streams.open(job)
            self._spawn(self._resume(job)) if delivery.attempt > 1 else self._run(job)
        else:
            self._run(job)
        return job

    def _run(self, job: Job) -> None:
        if job.spec is not None and job.spec.is_async and job.spec.batching is None:
            job.task = self._spawn(self._run_async(job))
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
        try:
            await self._suspects.advanced(job.envelope, await job.stream.learn())
        except StreamflowError as error:
            log.debug("request %s: its progress is not recorded: %s", job.envelope.request_id, error)
        self._run(job)

    def _form_of_output(self, envelope: Envelope) -> str:
        """What the next reader wants: the client's own form when this is the last hop, else columns."""
        try:
            steps = self._steps(envelope)
        except StreamflowError:
            return COLUMNS
        if len(steps) != 1 or steps[0].meets:
            return COLUMNS
        return envelope.accept if steps[0].kind is Kind.ANSWER else ANY

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
        stream = job.stream
        if stream is not None and isinstance(outcome, Paused):
            stream.park()
            return
        if stream is not None:
            self._streams.close(stream)
        self._jobs.pop(job.delivery.ack_subject, None)
        self._on_time(stream.busy_s if stream is not None else job.ended - job.started, self._runner.ahead)
        if job.cancelled:
            outcome = Dropped()
        self._settle(job, outcome)
        if isinstance(outcome, Failure) and outcome.exit_worker:
            self._on_fatal(f"{outcome.status.exception} is in exit_on_exceptions")

    def _settle(self, job: Job, outcome: Outcome) -> None:
        """The only place that publishes results and settles: forward, or answer, or dead-letter; then ack or term."""
        verdict = judge(outcome)
        try:
            if verdict.dead is not None:
                self._store_dead(job, verdict.dead)
            if verdict.answer is not None and job.envelope.reply:
                self._replies.send(job.envelope.reply, encode(self._closed(job, verdict.answer)))
            if verdict.forward:
                assert isinstance(outcome, Output)
                self._forward(job, self._opened(job, outcome), lambda error: self._posted(job, error))
                return
        except (Unavailable, Overloaded) as error:
            log.debug("request %s waits for the broker: %s", job.envelope.request_id, error)
            asyncio.get_running_loop().call_later(RETRY_S, self._settle, job, outcome)
            return
        except StreamflowError as error:
            if verdict.forward:
                self._settle(job, Failure(Status.of(error, executor=self._me.executor)))
                return
            log.error("request %s: its outcome cannot be sent: %s", job.envelope.request_id, error)
        self._done(job, verdict.settle)

    def _send_part(self, job: Job, position: int, output: Output) -> None:
        """One document of a stream, on its way by itself."""
        assert job.stream is not None
        job.over.set()  # it runs, and may for long: the next one that comes again need not wait for its end
        job.stream.storing()
        part = self._opened(job, output)._replace(position=position, final=False)
        try:
            self._forward(job, part, lambda error: self._part_posted(job, position, error))
        except StreamflowError as error:
            self._part_posted(job, position, error)

    def _part_posted(self, job: Job, position: int, error: StreamflowError | None) -> None:
        assert job.stream is not None
        if error is not None:
            failure = Failure(Status.of(error, executor=self._me.executor))
            is_running = job.delivery.ack_subject in self._jobs
            job.stream.end(failure, position)
            if not is_running:
                self._settle(job, failure)
        job.stream.stored()

    def _forward(self, job: Job, envelope: Envelope, done: Done) -> None:
        """To the client on the last hop, else to every next hop and meeting place; `done` follows when the broker has all of it."""
        graph = self._flows.graph(envelope.flow_version)
        steps = self._steps(job.envelope)
        if any(step.meets for step in steps):
            self._spawn(self._forward_parts(envelope, steps, graph, done))
        else:
            self._outbox.post(envelope, steps, graph, done)

    async def _forward_parts(self, envelope: Envelope, steps: tuple[Step, ...], graph: Graph, done: Done) -> None:
        try:
            await self._post(envelope, steps, graph)
        except StreamflowError as error:
            done(error)
        else:
            done(None)

    async def _complete_partial(self, job: Job) -> None:
        """The deadline is near and not all parts came: go on with those that did, if nobody has."""
        graph = self._flows.graph(job.envelope.flow_version)
        try:
            completed = await self._reducer.complete_without(job.envelope, graph)
            if completed is not None:
                await self._post(completed.envelope, completed.steps, graph)
                self._reducer.clear(completed)
        except StreamflowError as error:
            log.warning("request %s: no partial answer: %s", job.envelope.request_id, error)
        self._done(job, Settle.ACK)

    async def _post(self, envelope: Envelope, steps: tuple[Step, ...], graph: Graph) -> None:
        """Post `steps`, bringing parts to where they meet; what is completed there goes on in the same way."""
        plain = tuple(step for step in steps if not step.meets)
        if plain:
            await self._outbox.post_wait(envelope, plain, graph)
        for step in steps:
            completed = await self._reducer.arrive(envelope, step, graph) if step.meets else None
            if completed is not None:
                await self._post(completed.envelope, completed.steps, graph)
                self._reducer.clear(completed)

    def _posted(self, job: Job, error: StreamflowError | None) -> None:
        """The broker has the result, or will never take it, which is an answer too."""
        if error is None:
            self._done(job, Settle.ACK)
        else:
            self._settle(job, Failure(Status.of(error, executor=self._me.executor)))

    def _done(self, job: Job, settle: Settle) -> None:
        if job.stream is not None and job.stream.defer(lambda: self._done(job, settle)):
            return
        job.over.set()
        delivery = job.delivery
        self._keepalive.release(delivery.ack_subject)
        if settle is Settle.LEAVE:
            delivery.leave()
            return
        if settle is Settle.ACK:
            delivery.ack()
        else:
            delivery.term()
        if job.envelope.claim is not None:
            self._spawn(blobs.discard(self._bus, job.envelope.flow, job.envelope.claim))
        if delivery.attempt > 1:
            self._spawn(self._suspects.clear(job.envelope))

    def _store_dead(self, job: Job, status: Status) -> None:
        """Keep the whole message with its reason; whether that succeeded is logged, the queue must not stall on it."""
        body = b"" if job.envelope.claim else job.envelope.body
        kept = job.envelope._replace(
            body=body, status=status, trail=self._trail(job), extra={**job.envelope.extra, "dead": self._epitaph(job)}
        )

        def stored(_sequence: int, error: StreamflowError | None) -> None:
            if error is not None:
                log.error("request %s: dead letter lost: %s", job.envelope.request_id, error)

        job.envelope = job.envelope._replace(claim=None)  # the claimed body now belongs to the dead letter
        subject = subjects.dead(self._me.flow, self._me.executor)
        self._bus.store(subject, encode(kept), f"dead/{self._me.executor}/{job.delivery.sequence}", stored)
        log.error("request %s quarantined: %s", job.envelope.request_id or job.delivery.sequence, status.description)

    def _epitaph(self, job: Job) -> dict[str, Any]:
        return {"executor": self._me.executor, "worker": self._me.instance, "attempts": job.delivery.attempt, "time": time.time()}

    # envelopes

    def _steps(self, envelope: Envelope) -> tuple[Step, ...]:
        """Where the output for `envelope` goes; what came as a part only has to be brought to its place. Raises `InvalidInput`."""
        if envelope.part:
            if envelope.hop not in self._flows.graph(envelope.flow_version).meeting_places or envelope.part not in envelope.expected:
                raise InvalidInput(f"nothing meets at {envelope.hop!r}")
            kind = Kind.ANSWER if envelope.hop == GATEWAY else Kind.JOIN
            return (Step(kind, envelope.hop, envelope.part, envelope.expected, not envelope.reply),)
        graph = self._flows.graph(envelope.flow_version)
        return next_steps(graph, envelope.hop, envelope.endpoint, envelope.target_executor, shard=self._me.shard)

    def _trail(self, job: Job) -> tuple[Hop, ...]:
        delivery = job.delivery
        hop = Hop(self._me.executor, self._me.replica, delivery.stored, job.started, job.ended or time.time(), delivery.attempt)
        return (*job.envelope.trail, hop)

    def _opened(self, job: Job, output: Output) -> Envelope:
        """The envelope that carries `output` on."""
        envelope = job.envelope
        return envelope._replace(
            body=output.body,
            content_type=output.content_type,
            parameters=envelope.parameters if output.parameters is None else output.parameters,
            results=envelope.results if output.results is None else output.results,
            trail=self._trail(job),
            claim=None,
            status=OK,
            pieces=(len(output.body),) if envelope.stream and output.documents == 1 else (),
            **_place(job),
        )

    def _closed(self, job: Job, status: Status) -> Envelope:
        """The answer that says `status`; the documents stay behind. It is the last part where it stands in a stream."""
        place = {**_place(job), "final": True}
        return job.envelope._replace(body=b"", content_type="", hop="", status=status, trail=self._trail(job), claim=None, **place)

    # cancel and tasks

    def cancel(self, request_id: str) -> None:
        """Nobody waits for this request any more: drop it if it has not started, tell it if it runs on the loop."""
        self._cancelled[request_id] = None
        if len(self._cancelled) > CANCELLED_KEPT:
            self._cancelled.popitem(last=False)
        for job in [job for job in self._jobs.values() if job.envelope.request_id == request_id]:
            job.cancelled = True
            if job.stream is not None:
                job.stream.hurry()
            elif job.task is not None:
                job.task.cancel()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a delivery was left to its redelivery", exc_info=task.exception())


def _place(job: Job) -> dict[str, Any]:
    """Position and attempt of what goes out: those of the stream that `job` opened, or of the one that it is a part of."""
    stream, envelope = job.stream, job.envelope
    if stream is not None:
        position = stream.position if stream.failed_at is None else stream.failed_at
        return {"position": position, "source": stream.source, "attempt": job.delivery.attempt}
    return {} if envelope.position >= 0 else {"attempt": job.delivery.attempt}
