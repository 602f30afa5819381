"""What the gRPC handlers share: the client's deadline and trace context, ending a call, and streams of requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, NoReturn, TypeAlias

import grpc

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import Code, Status, StreamflowError

from .answers import place_of, request_id
from .desk import refused
from .dispatch import Call
from .status import outcome, retry_after_s
from .window import Window
from .wishes import Wishes

Context: TypeAlias = grpc.aio.ServicerContext
Handler: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
logger = logging.getLogger(__name__)
REQUEST_ID = "x-request-id"
_FOREVER_S = 1e9  # a call without a deadline reports one far in the future


def metadata(context: Context) -> dict[str, str]:
    """What the client sent beside the messages, text entries only."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _deadline_of(context: Context) -> float:
    """The deadline of the call in Unix seconds, 0.0 = none."""
    remaining_s = context.time_remaining()
    return 0.0 if remaining_s is None or remaining_s > _FOREVER_S else time.time() + remaining_s


def wishes_of(context: Context) -> Callable[[], Wishes]:
    """What the client says beside the messages, looked at once. The call raises `InvalidInput`, for each request anew."""
    return cache(lambda: Wishes.of(metadata(context), _deadline_of(context)))


def with_id(call: Call, context: Context) -> Call:
    """`call`, the only one of its connection, with the id in the metadata when its message has none."""
    call.client_id = call.client_id or metadata(context).get(REQUEST_ID, "")
    return call


async def abort(context: Context, envelope: Envelope) -> NoReturn:
    """End the call with the gRPC status of `envelope`; in the trailing metadata the request id, and where it ended."""
    code = getattr(grpc.StatusCode, outcome(envelope.status.code).grpc)
    trailer = [(REQUEST_ID, request_id(envelope)), *((f"x-streamflow-{name}", str(value)) for name, value in place_of(envelope).items())]
    trailer = [(name, value) for name, value in trailer if value.isascii() and value.isprintable()]
    if outcome(envelope.status.code).retry:
        trailer.append(("retry-after", str(retry_after_s(envelope.status))))
    await context.abort(code, envelope.status.description or envelope.status.code.value, tuple(trailer))
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


def telling(handler: Handler) -> Handler:
    """`guarded`, and what is refused ends the call with its gRPC status."""

    @wraps(handler)
    async def call(request: Any, context: Context) -> Any:
        try:
            return await handler(request, context)
        except StreamflowError as error:
            return await abort(context, refused(error))

    return guarded(call)


@dataclass(frozen=True, slots=True)
class Bundling:
    """Several requests or answers in one gRPC message: `unpack` gives what `take` takes, `pack` takes what `print` gives."""

    unpack: Callable[[bytes], Iterable[Any]]
    pack: Callable[[list[Any]], bytes]
    most: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """How one method turns messages into requests and answers into messages.

    `take` may raise a `StreamflowError`, which is the answer to the request with the id that `id_of` finds; so may that. With `fatal` an
    answer whose outcome ends a stream is told by ending the call.
    """

    take: Callable[[Any], asyncio.Future[Envelope]]
    id_of: Callable[[Any], str]
    print: Callable[[Envelope, float], Any]
    fatal: bool
    bundling: Bundling | None = None


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
        bundling = exchange.bundling
        reader = asyncio.create_task(_read(requests, window, exchange))
        self._readers.add(reader)
        ending: Envelope | None = None
        try:
            async for answers in window.bundles(bundling.most if bundling else 1):
                printed = []
                for started, envelope in answers:
                    if exchange.fatal and outcome(envelope.status.code).ends_stream:
                        ending = ending or envelope
                        reader.cancel()
                    else:
                        printed.append(exchange.print(envelope, started))
                if printed:
                    await context.write(bundling.pack(printed) if bundling else printed[0])
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
            for one in _unpacked(raw, exchange):
                await window.room()
                started = time.time()
                try:
                    window.add(started, exchange.take(one) if not isinstance(one, StreamflowError) else refused(one))
                except StreamflowError as error:
                    window.add(started, refused(error, client_id=_id_of(one, exchange)))
    finally:
        window.close()


def _id_of(request: Any, exchange: Exchange) -> str:
    """By which whoever sent it knows the answer; "" where nothing of it can be read."""
    try:
        return exchange.id_of(request)
    except StreamflowError:
        return ""


def _unpacked(raw: bytes, exchange: Exchange) -> Iterable[Any]:
    """The requests in one message; the error in their place when it cannot be read."""
    if exchange.bundling is None:
        return (raw,)
    try:
        return exchange.bundling.unpack(raw)
    except StreamflowError as error:
        return (error,)
