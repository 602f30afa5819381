"""The dispatcher: the single way from any protocol to the bus and back.

A request is registered, published to its first hops and answered when the last hop's answer arrives. The publish-ack is not waited for
on that way, but a refused publish (queue full, no stream, too large) answers the client at once. Whatever goes wrong is an answer with a
status, never an exception.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from streamflow.broker import blobs, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.credit import GONE, window_bytes
from streamflow.broker.envelope import EMPTY, JSON, Envelope, decode
from streamflow.broker.errors import Code, DeadlineExceeded, InvalidInput, StreamflowError, TooLarge, Unavailable
from streamflow.broker.flow import Graph
from streamflow.broker.hops import first_messages, hops_of, journal_copy, message_for
from streamflow.broker.routing import Kind, Step, first_steps, plan_for
from streamflow.broker.tasks import Tasks

from .asking import AskingAgain
from .catalog import Catalog
from .correlator import Correlator, Waiting
from .echo import echo
from .first_hops import FirstHops, Refusal, discard, failed
from .late import Late
from .sequence import Sequence
from .stored import StoredAnswers

log = logging.getLogger(__name__)

NO_WORKER_S = 10.0  # a request is refused when an executor has had no worker for so long


@dataclass(slots=True)
class Call:
    """One request as a protocol file read it."""

    endpoint: str
    body: bytes = b""
    content_type: str = EMPTY
    accept: str = JSON
    parameters: dict[str, Any] = field(default_factory=dict)
    client_id: str = ""
    target_executor: str = ""
    deadline: float = 0.0
    trace: dict[str, str] = field(default_factory=dict)
    latest: bool = False  # reads of stateful executors see every write that was answered before
    keep_s: float = 0.0  # the answer can be fetched again for so long (`stored.py`); 0.0 = as the flow says
    detached: bool = False  # nobody waits for the answer: it is kept


class Dispatcher:
    """Sends calls into one flow. `start()` before use, `close()` after the last answer."""

    def __init__(self, bus: Bus, graph: Graph, *, timeout_s: float | None = None) -> None:
        self._bus = bus
        self._graph = graph
        self._timeout_s = timeout_s
        self._owner = secrets.token_hex(6)
        self._number = 0
        self._correlator = Correlator(self._too_late)
        self._tasks = Tasks(log, "gateway task failed")
        self._late = Late(bus, lambda: self._graph, self._correlator, self._tasks, self._refuse)
        replies = subjects.replies(graph.flow, self._owner)
        self._again = AskingAgain(bus, lambda: self._graph, replies, self._correlator, self._tasks, self._begin)
        self._absent: set[str] = set()
        self._streams = 0
        self._partial = any(node.allow_partial for node in graph.nodes)
        self._stored = StoredAnswers(bus, lambda: self._graph, self._tasks.spawn)
        self.catalog = Catalog(graph)

    @property
    def open_requests(self) -> int:
        return len(self._correlator) + self._stored.open_requests

    @property
    def connected(self) -> bool:
        return self._bus.connected

    @property
    def bus(self) -> Bus:
        return self._bus

    @property
    def graph(self) -> Graph:
        return self._graph

    async def start(self) -> None:
        flow = self._graph.flow
        await self._bus.listen(subjects.replies(flow, self._owner), self._replied)
        await self._bus.listen(subjects.control(flow, "announce"), lambda s, r, h, payload: self.catalog.hear(payload))
        self._bus.on_reconnect(self._again.begin)
        self._bus.publish(subjects.control(flow, "hello"), b"")
        self._tasks.spawn(self._correlator.watch_deadlines())
        self._tasks.spawn(self._watch_workers())

    def use_graph(self, graph: Graph) -> None:
        """Route new requests by another definition of the same flow."""
        self._graph = graph
        self._partial = any(node.allow_partial for node in graph.nodes)
        self.catalog.use_graph(graph)

    async def close(self) -> None:
        await self._tasks.cancel()

    # requests

    def send(self, call: Call) -> asyncio.Future[Envelope]:
        """Publish `call`; the future gives its answer, whose `status` tells errors. Cancelling the future cancels the request, unless its
        answer is kept."""
        keep_s = call.keep_s or self._graph.keep_results_s
        if keep_s or call.detached:
            return self._stored.send(self._envelope(call), keep_s, detached=call.detached)
        future: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()

        def answered(answer: Envelope) -> None:
            if not future.done():
                future.set_result(answer)

        envelope = self._envelope(call)
        self._submit(envelope, answered)

        def ended(future: asyncio.Future[Envelope]) -> None:
            if future.cancelled():
                self._cancel(envelope.request_id)

        future.add_done_callback(ended)
        return future

    async def result(self, client_id: str, *, wait: bool = False) -> Envelope:
        """The kept answer to the request under `client_id` (`StoredAnswers.result`)."""
        return await self._stored.result(client_id, wait=wait)

    async def stream(self, call: Call) -> AsyncGenerator[Envelope, None]:
        """The documents of the answer as they come, one in each part, in order; the last part is empty, has `final` set, and holds a status
        when something failed.

        A reader that is slow holds the generator back (`credit.py`). Leaving the iterator early cancels the request.
        """
        envelope = self._envelope(call)._replace(stream=True)
        sequence = Sequence(envelope.run, self._report, lambda: window_bytes(self._streams))
        self._submit(envelope, sequence.arrive, sequence)
        whole = False
        self._streams += 1
        try:
            async with aclosing(sequence.read()) as parts:
                async for part in parts:
                    whole = part.final and part.status.code is Code.OK
                    yield part
        finally:
            self._streams -= 1
            if not whole:
                self._correlator.forget(envelope.request_id)
                self._withdraw(envelope)

    def _report(self, source: str, payload: bytes) -> None:
        """Tell the worker behind `source` how far the reader of its stream is."""
        try:
            self._bus.publish(subjects.credit(source), payload)
        except StreamflowError as error:
            log.debug("%s is not told %r: %s", source, payload, error)

    def _envelope(self, call: Call) -> Envelope:
        self._number += 1
        request_id = f"{self._owner}{self._number:x}"
        return Envelope(
            request_id, self._graph.flow, self._graph.version, call.endpoint, client_id=call.client_id, content_type=call.content_type,
            accept=call.accept, reply=subjects.reply(self._graph.flow, self._owner, request_id), deadline=self._deadline(call),
            target_executor=call.target_executor, parameters=call.parameters, trace=call.trace, latest=call.latest, body=call.body,
        )  # fmt: skip

    def _deadline(self, call: Call) -> float:
        """The caller's, or the gateway's own where that is sooner; Unix seconds, 0.0 = none."""
        if self._timeout_s is None:
            return call.deadline
        limit = time.time() + self._timeout_s
        return min(call.deadline, limit) if call.deadline else limit

    def _submit(self, envelope: Envelope, on_answer: Callable[[Envelope], object], sequence: Sequence | None = None) -> None:
        waiting = Waiting(envelope, on_answer, time.monotonic(), sequence=sequence)
        self._correlator.register(waiting)
        if self._partial and envelope.deadline:
            self._late.settle_before_deadline(envelope)
        self._begin(waiting, envelope)

    def _begin(self, waiting: Waiting, envelope: Envelope) -> None:
        """Publish `envelope`, the request of `waiting`, or refuse it."""
        try:
            steps = self._first_steps(envelope)
            if len(envelope.body) > self._bus.settings.inline_bytes:
                self._tasks.spawn(self._publish_large(waiting, envelope, steps))
            else:
                waiting.first = envelope
                self._publish(envelope, steps)
        except StreamflowError as error:
            self._refuse(envelope, error)

    def _first_steps(self, envelope: Envelope) -> tuple[Step, ...]:
        """Where the request goes first. Raises for what cannot be served at all."""
        if envelope.deadline and envelope.deadline <= time.time():
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        if len(envelope.body) > self._bus.settings.max_request_bytes:
            raise TooLarge(f"request of {len(envelope.body)} bytes, at most {self._bus.settings.max_request_bytes} are accepted")
        steps = first_steps(self._graph, envelope.endpoint, envelope.target_executor)
        if self._absent:
            self._check_workers(envelope)
        return steps

    async def _publish_large(self, waiting: Waiting, envelope: Envelope, steps: tuple[Step, ...]) -> None:
        """A body above the inline limit goes into the object store first, once for each hop, since each deletes what it read."""
        graph = self._graph
        whole: list[Envelope] = []
        try:
            for step in hops_of(steps):
                whole.append(await blobs.check_in(self._bus, envelope, shared=step.kind is Kind.ALL))
            messages = [message_for(graph, each, step) for each, step in zip(whole, hops_of(steps), strict=True)]
        except StreamflowError as error:
            self._refuse(envelope, error)
            await asyncio.gather(*(discard(self._bus, envelope.flow, each.claim) for each in whole if each.claim))
            return
        acks = self._acks_of(envelope, len(whole))
        for each, step, (subject, message_id, payload) in zip(whole, hops_of(steps), messages, strict=True):
            self._bus.store(subject, payload, message_id, acks.ack_of(step, each.claim))
        waiting.first = envelope
        if len(whole) < len(steps):
            self._correlator.resolve(echo(envelope))
        if self._graph.journal is not None:
            await self._journal_large(envelope, self._graph.journal.keep_s)

    async def _journal_large(self, envelope: Envelope, keep_s: float) -> None:
        """With a body of its own, which lives as long as the journal; the other one goes with the request."""
        try:
            copy = journal_copy(await blobs.check_in(self._bus, envelope, keep_s=keep_s))
            await self._bus.store_wait(copy.subject, copy.payload, copy.message_id)
        except StreamflowError as error:
            _not_in_journal(0, error)

    def _publish(self, envelope: Envelope, steps: tuple[Step, ...]) -> None:
        messages = first_messages(self._graph, envelope, steps)
        acks = self._acks_of(envelope, len(messages)) if len(messages) > 1 else None
        for (subject, message_id, payload), step in zip(messages, hops_of(steps), strict=True):
            self._bus.store(subject, payload, message_id, Refusal(self._refuse, envelope) if acks is None else acks.ack_of(step))
        if self._graph.journal is not None:
            copy = journal_copy(envelope)
            self._bus.store(copy.subject, copy.payload, copy.message_id, _not_in_journal)
        if len(messages) < len(steps):
            self._correlator.resolve(echo(envelope))

    def _acks_of(self, envelope: Envelope, total: int) -> FirstHops:
        return FirstHops(self._bus, self._graph, envelope, total, self._refuse, self._tasks.spawn)

    def _refuse(self, envelope: Envelope, error: StreamflowError) -> None:
        self._correlator.resolve(failed(envelope, error))

    # answers

    def _replied(self, _subject: bytes, _reply: bytes, _header: bytes | None, payload: bytes) -> None:
        try:
            answer = decode(payload)
        except InvalidInput as error:
            log.warning("not an answer: %s", error)
            return
        if answer.stream and answer.position < 0 and not answer.final:
            self._probed(answer)
        elif answer.claim is not None:
            self._tasks.spawn(self._fetch(answer))
        else:
            self._correlator.resolve(answer)

    def _probed(self, probe: Envelope) -> None:
        """A worker asks how far the reader of its stream is."""
        waiting = self._correlator.find(probe.request_id)
        self._report(probe.source, waiting.sequence.probed(probe) if waiting and waiting.sequence else GONE)

    async def _fetch(self, answer: Envelope) -> None:
        """An answer whose body lies in the object store."""
        assert answer.claim is not None
        try:
            self._correlator.resolve(await blobs.check_out(self._bus, answer))
        except StreamflowError as error:
            self._correlator.resolve(failed(answer, error))
            return
        await blobs.discard(self._bus, answer.flow, answer.claim)

    def _too_late(self, waiting: Waiting) -> None:
        self._late.explain(waiting)
        self._withdraw(waiting.envelope)

    # giving up

    def _cancel(self, request_id: str) -> None:
        waiting = self._correlator.forget(request_id)
        if waiting is not None:
            self._withdraw(waiting.envelope)

    def _withdraw(self, envelope: Envelope) -> None:
        """Tell the workers that nobody wants this answer: what is queued is dropped when it comes up, what runs is told."""
        try:
            self._bus.publish(subjects.control(envelope.flow, "cancel"), envelope.request_id.encode())
        except StreamflowError as error:
            log.debug("request %s: cancel not sent: %s", envelope.request_id, error)

    async def _watch_workers(self) -> None:
        """Refuse, rather than keep waiting, what needs an executor that has had no worker for `NO_WORKER_S`."""
        while True:
            await asyncio.sleep(0.5)
            self._absent = self.catalog.absent(NO_WORKER_S)
            if not self._absent or not self._bus.connected:
                continue
            for waiting in self._correlator.open():
                try:
                    self._check_workers(waiting.envelope)
                except Unavailable as error:
                    self._refuse(waiting.envelope, error)
                    self._withdraw(waiting.envelope)

    def _check_workers(self, envelope: Envelope) -> None:
        """Raises `Unavailable` naming an executor without workers that the answer to `envelope` needs."""
        needed = self._absent & plan_for(self._graph, envelope.target_executor).running
        for name in sorted(needed):
            if not self._graph.node(name).floating:
                raise Unavailable(f"executor {name!r} of flow {self._graph.flow!r} has no live worker")


def _not_in_journal(_sequence: int, error: StreamflowError | None) -> None:
    if error is not None:
        log.warning("a request is missing from the journal: %s", error)
