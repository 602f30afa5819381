"""The end of a delivery: what came of it is published, then it is settled. The only place that does so; `policy.py` decides how.

Order: the result is with the broker (publish-ack of every next hop, or the answer sent on the same connection) before the input is acked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from streamflow.broker import blobs, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import Envelope, encode
from streamflow.broker.errors import Code, Overloaded, Status, StreamflowError, TooLarge, Unavailable
from streamflow.broker.lifetimes import DEAD_LETTER_AGE_S
from streamflow.broker.pull import Delivery
from streamflow.broker.routing import Step

from .blanks import Blanks
from .executions import Execution, Failure, Outcome, Output
from .flows import Flows
from .forward import Forward
from .keepalive import Keepalive
from .outbox import Done
from .outgoing import Identity, Outgoing
from .patience import FULL_S, RETRY_S, patiently
from .policy import Settle, Verdict, judge
from .retries import Retries
from .suspects import Suspects

log = logging.getLogger(__name__)


class Settler:
    """`settle` is entered once for each execution, which ends settled, or left to its redelivery, whatever goes wrong on the way out."""

    def __init__(
        self,
        identity: Identity,
        bus: Bus,
        flows: Flows,
        outgoing: Outgoing,
        forward: Forward,
        keepalive: Keepalive,
        suspects: Suspects,
        retries: Retries,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:
        self._me = identity
        self._bus = bus
        self._outgoing = outgoing
        self._forward = forward
        self._keepalive = keepalive
        self._suspects = suspects
        self._retries = retries
        self._spawn = spawn
        self._blanks = Blanks(bus, flows, outgoing, spawn)

    def settle(self, execution: Execution, outcome: Outcome) -> None:
        """Forward, answer, try again later or dead-letter; then ack, term or leave."""
        try:
            self._carry_out(execution, outcome, judge(outcome, execution, self._retries))
        except Exception as error:
            self.broken(execution, error)

    def broken(self, execution: Execution, error: Exception) -> None:
        """streamflow itself failed: an answer too, and where even that fails the delivery is not kept alive any more."""
        log.error("request %s failed in streamflow itself", execution.envelope.request_id, exc_info=error)
        status = Status(Code.INTERNAL, f"{type(error).__name__} in executor {self._me.executor!r}", type(error).__name__)
        try:
            failure = Failure(status)
            self._carry_out(execution, failure, judge(failure, execution, self._retries))
        except Exception:
            log.exception("request %s is left to its redelivery", execution.envelope.request_id)
            execution.over.set()
            self.give_up(execution.delivery)

    def give_up(self, delivery: Delivery) -> None:
        """Nothing more will come of it here: nobody keeps it alive, so it is delivered again after its `ack_wait`."""
        self._keepalive.release(delivery.ack_subject)
        delivery.leave()

    def _carry_out(self, execution: Execution, outcome: Outcome, verdict: Verdict) -> None:
        if verdict.dead is not None:
            self._spawn(self._bury(execution, outcome, verdict, verdict.dead))
            return
        try:
            if verdict.answer is not None:
                self._answer(execution, verdict.settle, verdict.answer)
                return
            if verdict.forward:
                assert isinstance(outcome, Output)
                self._forward.send(execution, self._outgoing.opened(execution, outcome), lambda error: self._posted(execution, error))
                return
        except (Unavailable, Overloaded) as error:
            log.debug("request %s waits for the broker: %s", execution.envelope.request_id, error)
            asyncio.get_running_loop().call_later(RETRY_S, self._carry_out, execution, outcome, verdict)
            return
        except StreamflowError as error:
            if verdict.forward:
                self.fail(execution, error)
                return
            log.error("request %s: its outcome cannot be sent: %s", execution.envelope.request_id, error)
        if verdict.retry_s is not None:
            self._schedule(execution, outcome, verdict.retry_s)
        else:
            self._end(execution, verdict.settle)

    def fail(self, execution: Execution, error: StreamflowError) -> None:
        """Answer `error`, which is ours and not the executor's."""
        self.settle(execution, Failure(Status.of(error, executor=self._me.executor)))

    def send_part(self, execution: Execution, position: int, output: Output, done: Done) -> None:
        """One document of a stream, on its way by itself; the execution goes on."""
        part = self._outgoing.opened(execution, output)._replace(position=position, final=False)
        try:
            self._forward.send(execution, part, done)
        except StreamflowError as error:
            done(error)

    async def complete_partial(self, execution: Execution) -> None:
        """Go on with the parts that came, then ack the message that asked for it."""
        await self._forward.complete_partial(execution.envelope)
        self.done(execution, Settle.ACK)

    def _answer(self, execution: Execution, settle: Settle, status: Status) -> None:
        """Where parameters and results leave no room for the status, without them."""

        def answered(error: StreamflowError | None) -> None:
            if isinstance(error, TooLarge):
                self._forward.answer(
                    answer._replace(parameters={}, results={}, trail=()), lambda error: self._answered(execution, settle, error)
                )
            else:
                self._answered(execution, settle, error)

        answer = self._outgoing.closed(execution, status)
        self._forward.answer(answer, answered)

    def _answered(self, execution: Execution, settle: Settle, error: StreamflowError | None) -> None:
        if error is not None:
            log.error("request %s: its outcome cannot be sent: %s", execution.envelope.request_id, error)
        self._end(execution, settle)

    def _end(self, execution: Execution, settle: Settle) -> None:
        """Settle a request that goes no further, once those who would wait for it where parts meet know. Not when it is quarantined: they
        wait for what becomes of the dead letter."""
        steps = self._blanks.due(execution) if settle is Settle.ACK else ()
        if steps:
            self._spawn(self._end_with(execution, steps))
        else:
            self.done(execution, settle)

    async def _end_with(self, execution: Execution, steps: tuple[Step, ...]) -> None:
        try:
            await self._blanks.bring(execution, steps)
        except Exception:
            log.exception("request %s: parts that wait for it are left to expire", execution.envelope.request_id)
        self.done(execution, Settle.ACK)

    def _posted(self, execution: Execution, error: StreamflowError | None) -> None:
        """The broker has the result, or will never take it, which is an answer too."""
        if error is None:
            self.done(execution, Settle.ACK)
        else:
            self.fail(execution, error)

    def _schedule(self, execution: Execution, outcome: Outcome, retry_s: float) -> None:
        """Have the broker deliver the request again in `retry_s`, and forget it here."""
        envelope, executor = execution.envelope, self._me.executor
        owner = subjects.owner_of(execution.delivery.subject, self._me.shard)
        message = encode(self._outgoing.again(execution))
        message_id = subjects.message_id(envelope.ticket, executor, f"{owner}-{execution.attempt}", envelope.run)

        def stored(_sequence: int, error: StreamflowError | None) -> None:
            if error is None:
                execution.envelope = envelope._replace(claim=None)  # the claimed body now belongs to the next attempt
                self.done(execution, Settle.ACK)
            elif isinstance(error, Unavailable | Overloaded):
                log.debug("request %s: its next attempt waits for the broker: %s", envelope.request_id, error)
                asyncio.get_running_loop().call_later(RETRY_S, self.settle, execution, outcome)
            else:
                self.fail(execution, error)

        log.info("request %s: attempt %d failed, the next is in %.1f s", envelope.request_id, execution.attempt, retry_s)
        waiting = subjects.retry(self._me.flow, executor, owner, envelope.ticket)
        self._bus.schedule(waiting, subjects.again(self._me.flow, executor, owner, envelope.ticket), message, message_id, retry_s, stored)

    def done(self, execution: Execution, settle: Settle) -> None:
        """Settle the delivery, once the broker has all parts of its stream, and drop what was kept for it."""
        if execution.stream is not None:
            if execution.stream.defer(lambda: self.done(execution, settle)):
                return
            execution.stream = None  # which knows it in turn: nothing of them is left for the collector of garbage
        execution.over.set()
        delivery = execution.delivery
        if settle is Settle.LEAVE:
            self.give_up(delivery)
            return
        self._keepalive.release(delivery.ack_subject)
        if settle is Settle.ACK:
            delivery.ack()
        else:
            delivery.term()
        if execution.envelope.claim is not None:
            self._spawn(blobs.discard(self._bus, execution.envelope.flow, execution.envelope.claim))
        if delivery.attempt > 1:
            self._spawn(self._suspects.clear(execution.envelope))

    async def _bury(self, execution: Execution, outcome: Outcome, verdict: Verdict, status: Status) -> None:
        """Keep the whole message with its reason, then go on. When the broker will not keep it that is logged: the queue must not stall on
        it."""
        request_id = execution.envelope.request_id
        log.error("request %s is kept as a dead letter: %s", request_id, status.description)
        try:
            letter = self._outgoing.dead(execution, status)
            await patiently(f"the dead letter of request {request_id} waits", lambda: self._store_dead(execution, letter), full_s=FULL_S)
        except Exception as error:
            log.error("request %s: dead letter lost: %s", request_id, error)
        self._carry_out(execution, outcome, replace(verdict, dead=None))

    async def _store_dead(self, execution: Execution, letter: Envelope) -> None:
        """A large body is stored anew, since that of a request in flight soon goes. Once for each message, however often it is buried."""
        if len(letter.body) > self._bus.settings.inline_bytes:
            letter = await blobs.check_in(self._bus, letter, keep_s=DEAD_LETTER_AGE_S)
        message_id = f"dead/{execution.subject}/{self._me.shard}/{execution.delivery.sequence}"
        await self._bus.store_wait(subjects.dead(self._me.flow, self._me.executor, letter.request_id), encode(letter), message_id)
