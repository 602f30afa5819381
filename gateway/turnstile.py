"""Fair share for requests that somebody waits for: so many of a gateway's are in the flow at once, the others wait, tenants take turns.

Who calls must be known, so this is for gateways with rules. Others, and those without `fair_in_flight`, use the plain dispatcher.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from streamflow.broker.bus import Bus
from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import DeadlineExceeded, StreamflowError
from streamflow.broker.flow import Graph
from streamflow.broker.turns import Turns

from .desk import refused
from .dispatch import Call, Dispatcher
from .principals import CURRENT
from .quotas import LimitedDispatcher, OverLimit

WAITING = 1000  # requests of one tenant; more are refused (429)
RETRY_S = 1
Ticket = asyncio.Future[None]  # has a result while its request is in the flow


class Turnstile(Dispatcher):
    """A dispatcher with `places`. A stream takes one until it ends."""

    def __init__(self, bus: Bus, graph: Graph, *, timeout_s: float | None = None, places: int) -> None:
        super().__init__(bus, graph, timeout_s=timeout_s)
        self._free = places
        self._turns: Turns[Ticket] = Turns()
        self._waiting = 0

    @property
    def open_requests(self) -> int:
        return super().open_requests + self._waiting

    def send(self, call: Call) -> asyncio.Future[Envelope]:
        ticket = self._ticket(call)
        if not _is_in(ticket):
            return self._send_later(call, ticket)
        answer = super().send(call)
        answer.add_done_callback(lambda _: self._leave(ticket))
        return answer

    async def stream(self, call: Call) -> AsyncGenerator[Envelope, None]:
        ticket = self._ticket(call)
        try:
            try:
                await ticket
            except StreamflowError as error:
                yield refused(error, call)
                return
            async with aclosing(super().stream(call)) as parts:
                async for part in parts:
                    yield part
        finally:
            self._leave(ticket)

    def _send_later(self, call: Call, ticket: Ticket) -> asyncio.Future[Envelope]:
        answer: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()

        def go(_: Ticket) -> None:
            if answer.done():
                self._leave(ticket)
            elif _is_in(ticket):
                self._send_now(call, ticket, answer)
            else:
                answer.set_result(refused(_refusal(ticket), call))

        ticket.add_done_callback(go)
        answer.add_done_callback(lambda _: ticket.cancel())
        return answer

    def _send_now(self, call: Call, ticket: Ticket, answer: asyncio.Future[Envelope]) -> None:
        sent = super().send(call)

        def answered(_: asyncio.Future[Envelope]) -> None:
            self._leave(ticket)
            if not answer.done():
                answer.set_result(sent.result())

        sent.add_done_callback(answered)
        answer.add_done_callback(lambda _: sent.cancel())

    def _ticket(self, call: Call) -> Ticket:
        """In at once where there is a free place; else it waits for its tenant's turn, and at the longest until the deadline."""
        ticket: Ticket = asyncio.get_running_loop().create_future()
        tenant = CURRENT.get().share
        if self._free:
            self._free -= 1
            ticket.set_result(None)
        elif self._turns.waiting(tenant) >= WAITING:
            ticket.set_exception(OverLimit(f"{WAITING} requests of {tenant!r} wait for their turn, which is the limit", RETRY_S))
        else:
            self._wait(call, ticket, tenant)
        return ticket

    def _wait(self, call: Call, ticket: Ticket, tenant: str) -> None:
        call.deadline = self._deadline(call)
        self._turns.want(tenant, ticket)
        self._waiting += 1
        timer = asyncio.get_running_loop().call_later(call.deadline - time.time(), _too_late, ticket) if call.deadline else None

        def ended(_: Ticket) -> None:
            self._waiting -= 1
            self._turns.give_up(tenant, ticket)
            if timer is not None:
                timer.cancel()

        ticket.add_done_callback(ended)

    def _leave(self, ticket: Ticket) -> None:
        """The request is over, or nobody waits for it any more."""
        if not _is_in(ticket):
            ticket.cancel()
            return
        self._free += 1
        while self._free and (following := self._turns.take_one()) is not None:
            if not following.done():
                self._free -= 1
                following.set_result(None)


class FairDispatcher(LimitedDispatcher, Turnstile):
    """Each caller within its own limits, then all tenants in turn."""


def _is_in(ticket: Ticket) -> bool:
    return ticket.done() and not ticket.cancelled() and ticket.exception() is None


def _refusal(ticket: Ticket) -> StreamflowError:
    error = ticket.exception()
    assert isinstance(error, StreamflowError)
    return error


def _too_late(ticket: Ticket) -> None:
    if not ticket.done():
        ticket.set_exception(DeadlineExceeded("the deadline passed while the request waited at the gateway for its tenant's turn"))
