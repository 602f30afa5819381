"""What the gRPC handlers share: the client's deadline and trace context, ending a call, and streams of requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, NoReturn, TypeAlias

import grpc

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import Code, Status, StreamflowError

from .answers import request_id
from .desk import refused
from .status import outcome
from .window import Window

Context: TypeAlias = grpc.aio.ServicerContext
Handler: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
logger = logging.getLogger(__name__)
_TRACE = ("traceparent", "tracestate")
_FOREVER_S = 1e9  # a call without a deadline reports one far in the future


def metadata(context: Context) -> dict[str, str]:
    """What the client sent beside the messages, text entries only."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def deadline_of(context: Context) -> float:
    """The deadline of the call in Unix seconds, 0.0 = none."""
    remaining_s = context.time_remaining()
    return 0.0 if remaining_s is None or remaining_s > _FOREVER_S else time.time() + remaining_s


def trace_of(context: Context) -> dict[str, str]:
    """W3C trace context of the call."""
    return {key: value for key, value in context.invocation_metadata() or () if key in _TRACE}


async def abort(context: Context, envelope: Envelope) -> NoReturn:
    """End the call with the gRPC status of `envelope`, the request id in the trailing metadata."""
    code = getattr(grpc.StatusCode, outcome(envelope.status.code).grpc)
    shown = request_id(envelope)
    trailer = (("x-request-id", shown),) if shown.isascii() and shown.isprintable() else ()
    await context.abort(code, envelope.status.description or envelope.status.code.value, trailer)
    raise AssertionError("abort returned")


def guarded(handler: Handler) -> Handler:
    """`handler`, with our own faults logged and told as INTERNAL without details."""

    @wraps(handler)
    async def call(request: Any, context: Context) -> Any:
        try:
            return await handler(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception:
            if context.done():  # the client left while an answer was written
                return None
            logger.exception("%s failed inside the gateway", handler.__name__)
            return await context.abort(grpc.StatusCode.INTERNAL, "the gateway failed on this call")

    return call


@dataclass(frozen=True, slots=True)
class Exchange:
    """How one method turns messages into requests and answers into messages.

    `take` may raise a `StreamflowError`; with `fatal` an answer whose outcome ends a stream is told by ending the call.
    """

    take: Callable[[bytes], asyncio.Future[Envelope]]
    print: Callable[[Envelope, float], bytes]
    fatal: bool


class Streams:
    """The open streams of requests of one server, so that a stopping one can end them."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Task[None]] = set()
        self._stopping = False

    def stop(self) -> None:
        """End the reading of all streams; what they hold is still answered, then they end with UNAVAILABLE."""
        self._stopping = True
        for reader in list(self._readers):
            reader.cancel()

    async def serve(self, requests: AsyncIterator[bytes], context: Context, window: Window[float], exchange: Exchange) -> None:
        """Answer `requests` as `window` says; an answer that ends the stream comes after all others."""
        reader = asyncio.create_task(_read(requests, window, exchange))
        self._readers.add(reader)
        ending: Envelope | None = None
        try:
            async for started, envelope in window:
                if exchange.fatal and outcome(envelope.status.code).ends_stream:
                    ending = ending or envelope
                    reader.cancel()
                else:
                    await context.write(exchange.print(envelope, started))
            if self._stopping and ending is None:
                ending = refused(Status(Code.UNAVAILABLE, "the gateway is shutting down"))
            if ending is not None:
                await abort(context, ending)
        finally:
            window.cancel()
            reader.cancel()
            self._readers.discard(reader)
            await asyncio.gather(reader, return_exceptions=True)


async def _read(requests: AsyncIterator[bytes], window: Window[float], exchange: Exchange) -> None:
    try:
        async for raw in requests:
            await window.room()
            started = time.time()
            try:
                window.add(started, exchange.take(raw))
            except StreamflowError as error:
                window.add(started, refused(error))
    finally:
        window.close()
