"""Requests straight over the broker, without a gateway: published to the first executors, answered on a subject of the client's own.

What a gateway's dispatcher does, this client does with the same one, so the broker's users must be let do what a gateway may.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from streamflow.broker import bucket
from streamflow.broker.accounts import settings_for
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import COLUMNS, EMPTY, Envelope
from streamflow.broker.errors import Unavailable
from streamflow.broker.permissions import Role
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call, Dispatcher
from streamflow.gateway.keeping import is_pending
from streamflow.gateway.wishes import Wishes
from streamflow.jobs.nats_ import NatsJobs

from .address import Address
from .envelopes import parts_of
from .errors import BadArguments, ServerUnavailable
from .plain import plain
from .results import DataRequest
from .task_link import TaskLink
from .transport import CONNECT_S, Ask, Link, Metadata, Outgoing

_POLL_S = 0.02


class NatsTransport:
    """See `transport.Transport`. One connection for each flow, since each may have users of its own."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._buses: dict[str, Bus] = {}
        self._found: set[str] = set()
        self._dispatcher: Dispatcher | None = None
        self._opening = asyncio.Lock()

    async def link(self, ask: Ask, single: bool) -> Link:
        return _NatsLink(self, ask)

    async def stream(self, ask: Ask, request: Outgoing) -> AsyncGenerator[DataRequest, None]:
        dispatcher = await self.dispatcher()
        async for part in dispatcher.stream(_call(ask, request)):
            yield DataRequest(parts_of(part), ask.doc_type)

    async def ready(self, timeout_s: float, metadata: Metadata) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                dispatcher = await self.dispatcher()
                while missing := dispatcher.catalog.missing():
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise ServerUnavailable(f"{self.address}: no worker for {', '.join(missing)}") from None

    async def result(self, ask: Ask, request_id: str, wait: bool) -> DataRequest | None:
        answer = await (await self.dispatcher()).result(request_id, wait=wait)
        return None if is_pending(answer) else DataRequest(parts_of(answer), ask.doc_type)

    async def operate(self, flow: str) -> Bus:
        return await self.bus(flow, Role.OPERATOR)

    def jobs(self, metadata: Metadata) -> NatsJobs:
        return NatsJobs(self._deployed)

    async def _deployed(self, flow: str) -> Bus:
        """The connection for a flow that is there. Raises `NotFound`, `ServerUnavailable`."""
        bus = await self.bus(flow)
        if flow not in self._found:
            await bucket.require(bus, flow)
            self._found.add(flow)
        return bus

    async def bus(self, flow: str, role: Role = Role.CLIENT) -> Bus:
        """The connection for `flow`. Raises `ServerUnavailable`."""
        async with self._opening:
            place = f"{role}/{flow}"
            if place not in self._buses:
                given = BrokerSettings(broker_url=self.address.broker_url, connect_wait_s=CONNECT_S)
                if self.address.files.ca:
                    given = given.model_copy(update={"tls_ca": self.address.files.ca})
                try:
                    self._buses[place] = await Bus.connect(settings_for(given, role, flow), f"client {flow}")
                except Unavailable as error:
                    raise ServerUnavailable(str(error)) from error
            return self._buses[place]

    async def dispatcher(self) -> Dispatcher:
        """What sends requests into the flow of the address."""
        if not self.address.flow:
            raise BadArguments(f"{self.address}: name the flow in the address to send requests: {self.address}/shop")
        bus = await self.bus(self.address.flow, Role.GATEWAY)
        async with self._opening:
            if self._dispatcher is None:
                made = Dispatcher(bus, await bucket.load_graph(bus, self.address.flow))
                await made.start()
                self._dispatcher = made
            return self._dispatcher

    async def close(self) -> None:
        if self._dispatcher is not None:
            await self._dispatcher.close()
        for bus in self._buses.values():
            await bus.close()


class _NatsLink(TaskLink):
    def __init__(self, transport: NatsTransport, ask: Ask) -> None:
        super().__init__()
        self._transport = transport
        self._ask = ask

    async def encode(self, request: Outgoing) -> None:
        request.encoded(COLUMNS)

    async def call(self, request: Outgoing) -> DataRequest:
        dispatcher = await self._transport.dispatcher()
        answer: Envelope = await dispatcher.send(_call(self._ask, request))
        return DataRequest(parts_of(answer), self._ask.doc_type)


def _call(ask: Ask, request: Outgoing) -> Call:
    body = request.encoded(COLUMNS)
    call = Call(
        endpoint=f"/{ask.endpoint.strip('/')}",
        body=body,
        content_type=COLUMNS if body else EMPTY,
        accept=COLUMNS,
        parameters=plain(ask.parameters),
        client_id=request.request_id,
        target_executor=ask.target_executor,
        deadline=time.time() + ask.timeout_s if ask.timeout_s else 0.0,
        trace=ask.trace,
    )
    return Wishes.of(dict(ask.metadata)).applied(call)
