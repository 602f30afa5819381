"""Answers that are kept: a request is accepted once under its client's id, and answered from what a worker stored, by any gateway.

Such a request has no reply subject. Its last worker stores the outcome (`workers/outbox.py`, the first writer wins), and whoever asks under
its id waits for that, so the answer depends neither on the connection nor on the gateway it was asked through. A note in the flow's
bucket, there before the first publish, says which request an id stands for (docs/decisions/0021-kept-answers.md).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from streamflow.broker import blobs, bucket, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import Envelope, decode, encode, pack
from streamflow.broker.errors import (
    AlreadyExists,
    Code,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    StreamflowError,
    TooLarge,
    Unavailable,
)
from streamflow.broker.flow import Graph
from streamflow.broker.hops import first_messages, hops_of, journal_copy
from streamflow.broker.routing import Step, first_steps

from . import whereabouts
from .echo import echo
from .first_hops import failed, tell_of_refusal
from .keeping import NAME, pending
from .principals import ANYONE, CURRENT

log = logging.getLogger(__name__)

DEFAULT_KEEP_S = 86400.0  # for clients that do not wait and do not say
LONGEST_RUN_S = 3600.0  # that a note outlives the time to keep: its answer is stored later than it
SETTLED_S = 10.0  # a younger request that is nowhere may be about to be published
FIRST_LOOK_S, LOOK_GROWTH, LONGEST_LOOK_S = 0.002, 8.0, 5.0
_FINGERPRINT = "fingerprint"  # in `extra`: what the stored answer is an answer to


@dataclass(frozen=True, slots=True)
class Note:
    """Which request an id stands for. `since`: when it was accepted, Unix seconds."""

    request_id: str
    fingerprint: str
    since: float
    keep_s: float


class StoredAnswers:
    """Kept requests of one gateway. `spawn` owns what goes on when a client leaves."""

    def __init__(self, bus: Bus, graph: Callable[[], Graph], spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self._bus = bus
        self._graph = graph
        self._spawn = spawn
        self._listeners: set[asyncio.Event] = set()
        self.open_requests = 0
        bus.on_reconnect(self._look_again)

    def send(self, envelope: Envelope, keep_s: float, *, detached: bool) -> asyncio.Future[Envelope]:
        """The answer to come; of a `detached` request that it is under way. Cancelling the future leaves the request alone.

        The deadline of `envelope` is how long the answer is waited for, the request itself has none.
        """
        return asyncio.ensure_future(self._answer(envelope, keep_s or DEFAULT_KEEP_S, detached))

    async def result(self, client_id: str, *, wait: bool = False) -> Envelope:
        """The answer to the request under `client_id`; while it is under way what `pending` makes, or with `wait` the answer when it comes.

        Without one a status: NOT_FOUND for an id that is unknown or has expired.
        """
        asked = Envelope("unknown", self._graph().flow, endpoint="", client_id=client_id, record=_record(client_id))
        try:
            return await self._known(asked, wait)
        except StreamflowError as error:
            return _failed(asked, error)

    async def _known(self, asked: Envelope, wait: bool) -> Envelope:
        answer = await self._read(asked)
        if answer is not None:
            return answer
        note = await self._note(asked)
        if note is None or await self._is_lost(asked, note):
            answer = await self._read(asked)  # stored between the two looks
            if answer is None:
                raise NotFound(self._gone(asked.client_id, note))
            return answer
        asked = asked._replace(request_id=note.request_id)
        if not wait:
            return pending(asked)
        async with self._listening(asked) as heard:
            return await self._wait(asked, heard)

    def _gone(self, client_id: str, note: Note | None) -> str:
        if note is None:
            longest_s = self._bus.settings.keep_s
            return f"no answer is kept under request id {client_id[:200]!r}: it is unknown, or has expired (after {longest_s:g} s at most)"
        age_s = time.time() - note.since
        if age_s > note.keep_s:
            return f"the answer to request {client_id[:200]!r} has expired: it was kept for {note.keep_s:g} s"
        return f"request {client_id[:200]!r} came {age_s:.0f} s ago and did not reach a queue: send it again under the same id"

    async def _answer(self, envelope: Envelope, keep_s: float, detached: bool) -> Envelope:
        client_id = envelope.client_id or secrets.token_urlsafe(16)  # not ours, which could be guessed
        request = envelope._replace(
            client_id=client_id, reply="", record=_record(client_id), keep_s=keep_s, deadline=0.0,
            extra={_FINGERPRINT: _fingerprint(envelope)},
        )  # fmt: skip
        self.open_requests += 1
        try:
            if detached:
                await self._accepted(request)
                return pending(request)
            async with asyncio.timeout(envelope.deadline - time.time() if envelope.deadline else None), self._listening(request) as heard:
                await self._accepted(request)
                answer = await self._wait(request, heard)
            _require_same(request, answer.extra.get(_FINGERPRINT))
            return answer
        except TimeoutError:
            text = f"{request.endpoint}: no answer in time; ask for it again under request id {request.client_id!r}"
            return _failed(request, DeadlineExceeded(text))
        except StreamflowError as error:
            return _failed(request, error)
        finally:
            self.open_requests -= 1

    # accepting

    async def _accepted(self, request: Envelope) -> None:
        """Return once the request, or an earlier one under its id, is in a queue or answered; a client that leaves does not stop it.

        Raises `AlreadyExists` when the earlier one was another, and what a first publish may raise.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def end(error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        async def accept() -> None:
            try:
                await self._accept(request)
            except Exception as error:
                end(error)
            else:
                end(None)

        self._spawn(accept()).add_done_callback(lambda _: end(Unavailable("the gateway is shutting down")))
        await future

    async def _accept(self, request: Envelope) -> None:
        limit_s = self._bus.settings.keep_s
        if request.keep_s > limit_s:
            raise InvalidInput(f"{NAME}: {request.keep_s:g} s; answers are kept for {limit_s:g} s at most")
        earlier = await self._taken(request)
        if earlier is not None:
            _require_same(request, earlier.fingerprint)
            request = request._replace(request_id=earlier.request_id)
            if await self._is_under_way(request):
                return
            if time.time() - earlier.since > min(SETTLED_S, earlier.keep_s):  # lost, or expired: else it is just being published
                request = request._replace(run=secrets.token_hex(4))
        await self._publish(request)

    async def _taken(self, request: Envelope) -> Note | None:
        """Take the id for `request`, or tell which one has it."""
        note = Note(request.request_id, str(request.extra[_FINGERPRINT]), time.time(), request.keep_s)
        kept_s = request.keep_s + LONGEST_RUN_S
        for _ in range(3):  # what has it may expire between the two steps
            if await bucket.create(self._bus, request.flow, _note_key(request), asdict(note), keep_s=kept_s):
                return None
            earlier = await self._note(request)
            if earlier is not None:
                return earlier
        raise Unavailable(f"request id {request.client_id!r} cannot be taken at the moment")

    async def _note(self, request: Envelope) -> Note | None:
        raw = await bucket.get(self._bus, request.flow, _note_key(request))
        return None if raw is None else Note(**raw)

    async def _is_under_way(self, request: Envelope) -> bool:
        """Whether it is in a queue, or answered. The answer is stored before the queue lets go; who moves on between two queues while
        they are looked at is found by the second round."""
        for _ in range(2):
            if await self._is_somewhere(request) or await self._read(request) is not None:
                return True
        return False

    async def _is_lost(self, asked: Envelope, note: Note) -> bool:
        is_young = time.time() - note.since < SETTLED_S
        return not is_young and not await self._is_somewhere(asked._replace(request_id=note.request_id))

    async def _is_somewhere(self, request: Envelope) -> bool:
        graph = self._graph()
        if any(node.external for node in graph.nodes):
            return True  # it may be in the queue of another flow
        # Parts that wait for others do not count: what they wait for is in a queue until it has come.
        return await whereabouts.executor_of(self._bus, graph, request) is not None

    async def _publish(self, request: Envelope) -> None:
        """To the first hops; returns when they have it. Published again, it is what it was, and the queues drop it."""
        graph = self._graph()
        steps = first_steps(graph, request.endpoint, request.target_executor)
        if len(request.body) > self._bus.settings.inline_bytes:
            journal_s = graph.journal.keep_s if graph.journal else 0.0
            request = await blobs.check_in(self._bus, request, keep_s=max(self._bus.settings.keep_s, journal_s))
        messages = first_messages(graph, request, steps)
        has_nothing_to_do = len(messages) < len(steps)
        if graph.journal is not None:
            messages.append(journal_copy(request))
        stored = (self._bus.store_wait(message.subject, message.payload, message.message_id) for message in messages)
        outcomes = await asyncio.gather(*stored, return_exceptions=True)
        failed = [each for each in outcomes if isinstance(each, BaseException)]
        if failed:
            refused = [step for step, each in zip(hops_of(steps), outcomes, strict=False) if isinstance(each, Overloaded | TooLarge)]
            if 0 < len(refused) < len(hops_of(steps)):
                await self._give_up(request, graph, refused)
            raise failed[0]
        if has_nothing_to_do:
            await self._store(echo(request))

    async def _give_up(self, request: Envelope, graph: Graph, refused: list[Step]) -> None:
        """Some first hops took it and `refused` will not: what comes under its id next is another request, which meets nothing of this."""
        tell_of_refusal(self._bus, graph, request, refused)
        await bucket.delete(self._bus, request.flow, _note_key(request))

    async def _store(self, answer: Envelope) -> None:
        """The answer of a flow that has nothing to do for this request; those of workers are theirs to store."""
        try:
            subject = subjects.result(answer.flow, answer.record)
            await self._bus.store_first_wait(subject, encode(answer._replace(reply="")), keep_s=answer.keep_s)
            if answer.status.code is not Code.OK:
                await self._bus.store_first_wait(subjects.failed(answer.flow, answer.record), b"", keep_s=answer.keep_s)
        except AlreadyExists:
            log.debug("request %s was answered before", answer.request_id)

    # waiting

    @asynccontextmanager
    async def _listening(self, request: Envelope) -> AsyncIterator[asyncio.Event]:
        """Set when a worker publishes the answer, which is a moment before it can be read."""
        heard = asyncio.Event()
        subscription = await self._bus.listen(subjects.result(request.flow, request.record), lambda s, r, h, p: heard.set())
        self._listeners.add(heard)
        try:
            yield heard
        finally:
            self._listeners.discard(heard)
            self._spawn(self._unlisten(subscription))

    async def _wait(self, request: Envelope, heard: asyncio.Event) -> Envelope:
        """The stored answer, once it is there. Looked for soon again at first, since it may have been published before anybody listened."""
        pause_s = FIRST_LOOK_S
        while True:
            heard.clear()
            answer = await self._read_if_possible(request)
            if answer is not None:
                return answer
            try:
                async with asyncio.timeout(pause_s):
                    await heard.wait()
                pause_s = FIRST_LOOK_S
            except TimeoutError:
                pause_s = min(LOOK_GROWTH * pause_s, LONGEST_LOOK_S)

    async def _unlisten(self, subscription: object) -> None:
        try:
            await self._bus.unlisten(subscription)
        except Exception as error:
            log.debug("a subscription is left to the end of the connection: %s", error)

    def _look_again(self) -> None:
        """What was published while the broker was away, nobody heard."""
        for heard in self._listeners:
            heard.set()

    async def _read_if_possible(self, request: Envelope) -> Envelope | None:
        try:
            return await self._read(request)
        except (Unavailable, Overloaded) as error:
            log.debug("request %s: its answer cannot be looked for: %s", request.request_id, error)
            return None

    async def _read(self, request: Envelope) -> Envelope | None:
        """The stored answer with its body in place, None when there is none. Raises `Unavailable`, `NotFound` for a body that is gone."""
        stream, subject = subjects.results_stream(request.flow), subjects.result(request.flow, request.record)
        message = await self._bus.direct_get(stream, subject)
        if message is None:
            return None
        answer = decode(message)
        return answer if answer.claim is None else await blobs.check_out(self._bus, answer)


def _record(client_id: str) -> str:
    """Where the answer to a request with this id is stored. Callers that are told apart do not see each other's, whatever ids they send."""
    principal = CURRENT.get()
    name = subjects.digest(client_id)
    if (principal.name, principal.tenant) != (ANYONE.name, ""):
        owner = subjects.digest(f"{subjects.digest(principal.tenant)}{subjects.digest(principal.name)}")
        name = f"{owner}-{name}"
    return f"{subjects.ONLINE}.{name}"


def _note_key(request: Envelope) -> str:
    return f"accepted.{request.record.partition('.')[2]}"


def _fingerprint(envelope: Envelope) -> str:
    """Tells a request that is sent again from another one under the same id."""
    head = [envelope.endpoint, envelope.target_executor, envelope.content_type, envelope.accept, envelope.parameters]
    return sha256(pack(head, "parameters") + bytes(envelope.body)).hexdigest()


def _require_same(request: Envelope, fingerprint: object) -> None:
    if fingerprint not in (None, request.extra[_FINGERPRINT]):
        raise AlreadyExists(f"request id {request.client_id[:200]!r} was used for another request")


def _failed(request: Envelope, error: StreamflowError) -> Envelope:
    return failed(request, error)._replace(record="")
