"""The seam between post() and the protocols: what is asked, one request of it, and the two objects each protocol file provides."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from docarray.base_doc import AnyDoc
from docarray.base_doc.doc import BaseDocWithoutId

from streamflow.broker import codec

from .address import Address
from .inputs import Docs
from .results import DataRequest

if TYPE_CHECKING:
    from streamflow.broker.bus import Bus
    from streamflow.jobs.backend import Backend as JobBackend

Metadata = tuple[tuple[str, str], ...]
BROKER_ONLY = "dead letters are looked after over nats://"
CONNECT_S = 3.0  # for a TCP connection; a host that does not answer would hold the caller for minutes


@dataclass(frozen=True, slots=True)
class Ask:
    """What all requests of one post() share. `metadata` goes out as gRPC metadata or HTTP headers."""

    endpoint: str
    target_executor: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    doc_type: type[BaseDocWithoutId] = AnyDoc
    timeout_s: float | None = None
    metadata: Metadata = ()
    compression: str | None = None
    unary: bool = False
    trace: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Outgoing:
    """One request. Its id stays the same on every attempt, so that a second one is known as such.

    From the first attempt on it holds its documents as they were sent, a fraction of what the objects take; on the last one not even that.
    """

    docs: Docs
    sequence: int = 0
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    attempts: int = 0
    is_last: bool = False  # no other attempt follows
    sent: float = 0.0  # loop time of the latest attempt
    answer: asyncio.Future[DataRequest] = field(init=False)  # of the latest attempt, made by the exchange
    body: bytes = b""
    content_type: str = ""  # of `body`
    held_bytes: int = 0  # what it counts as under way, see `prefetch`

    def keep(self, body: bytes, content_type: str) -> None:
        """Hold `body` in place of the documents."""
        self.body, self.content_type, self.docs = body, content_type, []

    def encoded(self, content_type: str) -> bytes:
        """The documents as a body of `content_type`, b"" for none; encoded once. Raises `InvalidInput` when they cannot be."""
        if self.body and self.content_type != content_type:  # a server of another kind has taken the place of the first
            self.docs = list(codec.decode(self.body, self.content_type, AnyDoc).docs)
        if self.docs:
            self.keep(codec.encode(self.docs, content_type), content_type)
        return self.body

    def gone(self) -> None:
        """It is on its way: what only another attempt would need is let go."""
        if self.is_last:
            self.body = b""


class Link(Protocol):
    """The way of one post() to the server; belongs to one event loop.

    `encode` has a request hold what is sent of it in place of its documents; it comes before `send`, each time.
    `send` waits for flow control only; the answer goes to `request.answer`. That future, or either method, fails with an error of
    `errors.TRANSIENT` when sending again may help: the link then re-connects by itself. An executor's exception is an answer.
    Both may be called from two tasks. A cancelled `request.answer` means that nobody waits any more. `close` may be called twice.
    """

    async def encode(self, request: Outgoing) -> None: ...

    async def send(self, request: Outgoing) -> None: ...

    async def close(self) -> None: ...


class Transport(Protocol):
    """One client's connection; belongs to one event loop. Connecting happens on first use."""

    address: Address

    async def link(self, ask: Ask, single: bool) -> Link:
        """A way for the requests of `ask`; `single` says that there will be exactly one."""
        ...

    def stream(self, ask: Ask, request: Outgoing) -> AsyncGenerator[DataRequest, None]:
        """The parts of a streaming endpoint's answer, in order."""
        ...

    async def ready(self, timeout_s: float, metadata: Metadata) -> None:
        """Return when the gateway and an executor each of the flow can serve; raise a `StreamflowError` otherwise."""
        ...

    async def result(self, ask: Ask, request_id: str, wait: bool) -> DataRequest | None:
        """The kept answer of an earlier request, None while it is under way (unless `wait`). Raises `BadArguments` where this protocol has
        no way to ask."""
        ...

    async def operate(self, flow: str) -> Bus:
        """The broker, with an operator's rights on `flow`. Raises `BadArguments` where there is only a gateway."""
        ...

    def jobs(self, metadata: Metadata) -> JobBackend:
        """The way to the jobs of the flow. Raises `BadArguments` where this protocol has none."""
        ...

    async def close(self) -> None: ...


def trace_context() -> dict[str, str]:
    """The caller's W3C trace context; empty unless the program uses OpenTelemetry already (importing it here would cost 50 ms)."""
    propagate = sys.modules.get("opentelemetry.propagate")
    carrier: dict[str, str] = {}
    if propagate is not None:
        propagate.inject(carrier)
    return carrier


def pairs(*sources: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> Metadata:
    """Metadata given as mapping or pairs, joined, with lower-case names (HTTP/2 allows no others)."""
    joined: list[tuple[str, str]] = []
    for source in sources:
        items = source.items() if isinstance(source, Mapping) else source or ()
        joined.extend((str(name).lower(), value) for name, value in items)
    return tuple(joined)
