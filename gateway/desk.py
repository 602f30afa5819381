"""Where every protocol hands in its calls: refuses what cannot be served, gives the rest to the dispatcher; both come back as envelopes."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import Code, InvalidInput, Status, StreamflowError

from .catalog import Catalog
from .dispatch import Call
from .keeping import NAME as KEEP
from .view import View

logger = logging.getLogger(__name__)
_MAX_ID = 512  # characters; these travel in the envelope's header
_MAX_NAME = 1024


class Dispatching(Protocol):
    """What the protocol files need of the dispatcher (`dispatch.Dispatcher`)."""

    @property
    def catalog(self) -> Catalog: ...

    @property
    def connected(self) -> bool: ...

    def send(self, call: Call) -> asyncio.Future[Envelope]:
        """The answer to come; a failed request is an answer too. Cancelling it cancels the request."""

    async def result(self, client_id: str, *, wait: bool = False) -> Envelope:
        """A kept answer, what `keeping.pending` makes while it is under way, or NOT_FOUND."""

    def stream(self, call: Call) -> AsyncIterator[Envelope]:
        """The documents of the answer in order, one a part; the last part is empty and `final`."""


class Desk:
    """Requests in, answers out, for one gateway. `view` says what is served and whether the gateway is draining."""

    def __init__(self, dispatcher: Dispatching) -> None:
        self._dispatcher = dispatcher
        self.view = View(dispatcher.catalog, lambda: dispatcher.connected)

    def send(self, call: Call) -> asyncio.Future[Envelope]:
        """The answer to come, a refusal included. Cancelling it cancels the request."""
        refusal = _refusal(call)
        if refusal is None:
            try:
                return self._dispatcher.send(call)
            except Exception as error:
                refusal = _crashed(error, call)
        future: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        future.set_result(refused(refusal, call))
        return future

    async def result(self, request_id: str, *, wait: bool = False) -> Envelope:
        """The kept answer of an earlier request; while it is under way one that is pending, or with `wait` the answer when it comes."""
        if not 0 < len(request_id) <= _MAX_ID:
            return refused(_invalid(f"request_id: 1 to {_MAX_ID} characters"), client_id=request_id)
        return await self._dispatcher.result(request_id, wait=wait)

    async def stream(self, call: Call) -> AsyncGenerator[Envelope, None]:
        """The documents of the answer one by one as they come; the last part is empty and holds a failure. Any endpoint may be asked so."""
        unknown = self.view.unknown(call.endpoint)
        refusal = _refusal(call) or (Status.of(unknown) if unknown is not None else None) or _never_kept(call)
        if refusal is not None:
            yield refused(refusal, call)
            return
        parts = self._dispatcher.stream(call)
        try:
            async for part in parts:
                yield part
        except Exception as error:
            yield refused(_crashed(error, call), call)
        finally:
            close = getattr(parts, "aclose", None)  # an async generator must not wait for the garbage collector to cancel the request
            if close is not None:
                await close()


def refused(reason: Status | StreamflowError, call: Call | None = None, *, client_id: str = "") -> Envelope:
    """The answer to a request that never reached the bus; it gets an id of its own when the client sent none."""
    status = reason if isinstance(reason, Status) else Status.of(reason)
    if call is None:
        return Envelope(uuid.uuid4().hex, endpoint="", client_id=client_id[:_MAX_ID], status=status)
    return Envelope(
        uuid.uuid4().hex,
        endpoint=call.endpoint[:_MAX_NAME],
        client_id=call.client_id[:_MAX_ID],
        target_executor=call.target_executor[:_MAX_NAME],
        status=status,
    )


def _refusal(call: Call) -> Status | None:
    """Why `call` may not travel (its names stand in every envelope's header), None when it may."""
    if len(call.client_id) > _MAX_ID:
        return _invalid(f"request_id: at most {_MAX_ID} characters")
    if len(call.endpoint) > _MAX_NAME:
        return _invalid(f"endpoint: at most {_MAX_NAME} characters")
    return _bad_target(call.target_executor) if call.target_executor else None


def _never_kept(call: Call) -> Status | None:
    return _invalid(f"{KEEP}: a stream is not kept: ask for one answer instead") if call.keep_s or call.detached else None


def _invalid(text: str) -> Status:
    return Status(Code.INVALID_ARGUMENT, text, InvalidInput.__name__)


def _bad_target(pattern: str) -> Status | None:
    if len(pattern) > _MAX_NAME:
        return _invalid(f"target_executor: at most {_MAX_NAME} characters")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return _invalid(f"target_executor: {pattern[:80]!r} is not a regular expression: {error}")
    return None


def _crashed(error: Exception, call: Call) -> Status:
    logger.error("request %r to %s failed inside the gateway", call.client_id, call.endpoint, exc_info=error)
    return Status(Code.INTERNAL, "the gateway failed on this request", type(error).__name__)
