"""The way out of a worker: an envelope to the client or to the next hops, retried with the result in hand until the broker has it.

`post` is entered once for each result; `done` is called once, after which the input may be acked.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

from streamflow.broker import blobs, codec, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import EMPTY, Envelope, decode, encode
from streamflow.broker.errors import AlreadyExists, Code, StreamflowError, TooLarge, Unavailable
from streamflow.broker.flow import Graph
from streamflow.broker.hops import Message, message_for
from streamflow.broker.replies import ReplySender
from streamflow.broker.routing import Kind, Step

from .patience import FULL_S, RETRY_S, patiently

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 2.0
Done = Callable[[StreamflowError | None], None]


class Outbox:
    """Publishes results of one worker. `spawn` starts a task that the worker waits for when it drains."""

    def __init__(self, bus: Bus, replies: ReplySender, spawn: Callable[[Coroutine[Any, Any, None]], Any]) -> None:
        self._bus = bus
        self._replies = replies
        self._spawn = spawn

    def post(self, envelope: Envelope, steps: tuple[Step, ...], graph: Graph, done: Done) -> None:
        """Send `envelope` on all `steps` (WORK, ALL and a whole ANSWER; parts are the reducer's).

        `done(None)` follows when the broker has everything, `done(error)` when it will never take it (`TooLarge`, or a
        form that cannot hold the documents).
        """
        if len(envelope.body) > self._bus.settings.inline_bytes:
            self._spawn(self._post_large(envelope, steps, graph, done))
            return
        stores = [step for step in steps if step.kind is not Kind.ANSWER]
        if len(stores) < len(steps):
            try:
                answer = _in_the_clients_form(envelope)
            except StreamflowError as error:
                done(error)
                return
        left = done if len(steps) == 1 else Countdown(len(steps), done)
        if len(stores) < len(steps):
            self.answer(answer, left)
        if not steps:
            done(None)
        for step in stores:
            self.send(message_for(graph, envelope, step), left)

    async def post_wait(self, envelope: Envelope, steps: tuple[Step, ...], graph: Graph) -> None:
        """`post` for those who wait. Raises what the broker will never take."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.post(envelope, steps, graph, lambda error: future.set_exception(error) if error else future.set_result(None))
        await future

    async def _post_large(self, envelope: Envelope, steps: tuple[Step, ...], graph: Graph, done: Done) -> None:
        """A body above the inline limit goes into the object store, once for each reader, since each deletes what it read."""
        left = Countdown(len(steps), done)
        for step in steps:
            try:
                if step.kind is Kind.ANSWER:
                    keep_s = (envelope.keep_s or self._bus.settings.keep_s) if envelope.record else 0.0
                    stored = await self._checked_in(_in_the_clients_form(envelope), keep_s=keep_s)
                else:
                    stored = await self._checked_in(envelope, shared=step.kind is Kind.ALL)
                self.post(stored, (step,), graph, left)
            except StreamflowError as error:
                left(error)

    async def _checked_in(self, envelope: Envelope, *, keep_s: float = 0.0, shared: bool = False) -> Envelope:
        """Later hops make room; a job, for which nobody waits, has the time."""
        what, full_s = f"request {envelope.request_id}: its body waits", math.inf if envelope.job else FULL_S
        return await patiently(what, lambda: blobs.check_in(self._bus, envelope, keep_s=keep_s, shared=shared), full_s=full_s)

    def answer(self, envelope: Envelope, done: Done) -> None:
        """Send a whole answer to who waits for it, and store it where the request asked for that; `done` follows when both are safe."""
        try:
            message = encode(envelope._replace(hop="", part="", expected=()))
            if envelope.reply:
                self._replies.send(envelope.reply, message)
        except StreamflowError as error:
            if isinstance(error, Unavailable):
                asyncio.get_running_loop().call_later(RETRY_S, self.answer, envelope, done)
            else:
                done(error)
            return
        if envelope.record and envelope.position < 0:
            self._record(envelope, message, done)
        else:
            done(None)

    def _record(self, envelope: Envelope, message: bytes, done: Done, pause_s: float = 0.0) -> None:
        """Store an outcome once: when one is there already, that one counts. `pause_s`: after how long this is another attempt."""

        def stored(_sequence: int, error: StreamflowError | None) -> None:
            if isinstance(error, AlreadyExists):
                self._spawn(self._mark_recorded(envelope, message, done))
            elif error is not None and not isinstance(error, TooLarge):
                if not pause_s:
                    log.warning("the outcome of request %s waits: %s", envelope.request_id, error)
                again_s = min(max(RETRY_S, 2 * pause_s), LONGEST_PAUSE_S)  # a full store may stay full for hours
                asyncio.get_running_loop().call_later(again_s, self._record, envelope, message, done, again_s)
            elif error is None and envelope.status.code is not Code.OK:
                self._mark_failed(envelope, done)
            else:
                done(error)

        self._bus.store_first(subjects.result(envelope.flow, envelope.record), message, stored, keep_s=envelope.keep_s)

    async def _mark_recorded(self, envelope: Envelope, message: bytes, done: Done) -> None:
        """Another attempt stored its outcome first, and may have died before it marked a failure; or that was taken back since."""
        stream, subject = subjects.results_stream(envelope.flow), subjects.result(envelope.flow, envelope.record)
        found = await patiently(
            f"the outcome of request {envelope.request_id} is looked for", lambda: self._bus.direct_get(stream, subject)
        )
        if found is None:
            self._record(envelope, message, done)
        elif decode(found).status.code is not Code.OK:
            self._mark_failed(envelope, done)
        else:
            done(None)

    def _mark_failed(self, envelope: Envelope, done: Done) -> None:
        def stored(_sequence: int, error: StreamflowError | None) -> None:
            if error is None or isinstance(error, AlreadyExists):
                done(None)
            else:
                asyncio.get_running_loop().call_later(RETRY_S, self._mark_failed, envelope, done)

        self._bus.store_first(subjects.failed(envelope.flow, envelope.record), b"", stored, keep_s=envelope.keep_s)

    def send(self, message: Message, done: Done) -> None:
        """Publish one message, again and again until the broker has it; `done(error)` when it never will (`TooLarge`)."""

        def stored(_sequence: int, error: StreamflowError | None) -> None:
            if error is None or isinstance(error, TooLarge):
                done(error)
                return
            log.warning("a result waits for %s: %s", message.subject, error)
            asyncio.get_running_loop().call_later(RETRY_S, self.send, message, done)

        self._bus.store(message.subject, message.payload, message.message_id, stored)


class Countdown:
    """Calls `done` after `count` calls, with the first error if there was one."""

    def __init__(self, count: int, done: Done) -> None:
        self._count = count
        self._done = done
        self._error: StreamflowError | None = None

    def __call__(self, error: StreamflowError | None) -> None:
        self._count -= 1
        self._error = self._error or error
        if not self._count:
            self._done(self._error)


def _in_the_clients_form(envelope: Envelope) -> Envelope:
    """Where an answer and copies for floating executors go out together, the body is columns. Part of a stream: one body a document."""
    if envelope.claim is not None or envelope.content_type == EMPTY:
        return envelope
    if envelope.content_type != envelope.accept:
        body = codec.transcode(envelope.body, envelope.content_type, envelope.accept)
        envelope = envelope._replace(body=body, content_type=envelope.accept, pieces=())
    if not envelope.stream or envelope.pieces:
        return envelope
    bodies = codec.split(envelope.body, envelope.content_type)
    return envelope._replace(body=b"".join(bodies), pieces=tuple(map(len, bodies)))
