"""The way out of a worker: an envelope to the client or to the next hops, retried with the result in hand until the broker has it.

`post` is entered once for each result; `done` is called once, after which the input may be acked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from streamflow.broker import blobs, codec, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import EMPTY, Envelope, encode
from streamflow.broker.errors import StreamflowError, TooLarge, Unavailable
from streamflow.broker.flow import Graph
from streamflow.broker.replies import ReplySender
from streamflow.broker.routing import Kind, Step

log = logging.getLogger(__name__)

RETRY_S = 0.25
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
            self._answer(answer, done if not stores else None)
        if not steps:
            done(None)
        left = _Countdown(len(stores), done)
        for step in stores:
            self._store(*_addressed(envelope, step, graph), left)

    async def post_wait(self, envelope: Envelope, steps: tuple[Step, ...], graph: Graph) -> None:
        """`post` for those who wait. Raises what the broker will never take."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.post(envelope, steps, graph, lambda error: future.set_exception(error) if error else future.set_result(None))
        await future

    async def _post_large(self, envelope: Envelope, steps: tuple[Step, ...], graph: Graph, done: Done) -> None:
        """A body above the inline limit goes into the object store, once for each reader, since each deletes what it read."""
        left = _Countdown(len(steps), done)
        for step in steps:
            try:
                stored = await self._checked_in(_in_the_clients_form(envelope) if step.kind is Kind.ANSWER else envelope)
            except StreamflowError as error:
                left(error)
                continue
            self.post(stored, (step,), graph, left)

    async def _checked_in(self, envelope: Envelope) -> Envelope:
        while True:
            try:
                return await blobs.check_in(self._bus, envelope)
            except Unavailable as error:
                log.warning("request %s: its body waits: %s", envelope.request_id, error)
                await asyncio.sleep(RETRY_S)

    def _answer(self, envelope: Envelope, done: Done | None) -> None:
        error: StreamflowError | None = None
        if envelope.reply:
            try:
                self._replies.send(envelope.reply, encode(envelope._replace(hop="", part="", expected=())))
            except TooLarge as too_large:
                error = too_large
            except Unavailable:
                asyncio.get_running_loop().call_later(RETRY_S, self._answer, envelope, done)
                return
        if done is not None:
            done(error)

    def _store(self, subject: str, message_id: str, message: bytes, done: Done) -> None:
        def stored(_sequence: int, error: StreamflowError | None) -> None:
            if error is None or isinstance(error, TooLarge):
                done(error)
                return
            log.warning("a result waits for %s: %s", subject, error)
            asyncio.get_running_loop().call_later(RETRY_S, self._store, subject, message_id, message, done)

        self._bus.store(subject, message, message_id, stored)


class _Countdown:
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


def _addressed(envelope: Envelope, step: Step, graph: Graph) -> tuple[str, str, bytes]:
    """Subject, message id and bytes of `envelope` for one step."""
    node = graph.node(step.executor)
    flow, executor = node.external_flow or envelope.flow, node.external_executor or step.executor
    if step.kind is Kind.ALL:
        subject = subjects.fan_out(flow, executor, envelope.request_id)
    else:
        subject = subjects.work(flow, executor, envelope.lane, envelope.request_id)
    target = envelope._replace(hop=step.executor, part=step.part, expected=step.expected, reply="" if step.floating else envelope.reply)
    return subject, subjects.message_id(envelope.ticket, step.executor, step.part, envelope.run), encode(target)
