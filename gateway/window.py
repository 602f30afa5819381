"""The requests of one client stream: a bounded number in flight, answers in completion order (or, when asked for, in order of arrival)."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import Code, Status

T = TypeVar("T")
BUNDLE_BYTES = 1 << 17
logger = logging.getLogger(__name__)


class Window(Generic[T]):
    """One task adds futures and waits for `room()`, one other task iterates over `(tag, envelope)`.

    A request keeps its place until its answer has been handed on *and* the iterating task came back for the next one, so a client that
    does not read its answers is not read from either. Not safe from more than these two tasks.
    """

    def __init__(self, limit: int, *, in_order: bool = False) -> None:
        """`limit` requests at once, 0 = no limit."""
        self._limit = limit or sys.maxsize
        self._in_order = in_order
        self._open: dict[asyncio.Future[Envelope], T] = {}
        self._done: deque[tuple[T, asyncio.Future[Envelope]]] = deque()
        self._writing = 0
        self._closed = False
        self._arrived = asyncio.Event()
        self._freed = asyncio.Event()

    def add(self, tag: T, answer: asyncio.Future[Envelope] | Envelope) -> None:
        """One more request, whose answer is still to come or known already."""
        if isinstance(answer, Envelope):
            future: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
            future.set_result(answer)
        else:
            future = answer
        self._open[future] = tag
        future.add_done_callback(self._on_done)

    async def room(self) -> None:
        """Return once one more request may be read."""
        while len(self._open) + len(self._done) + self._writing >= self._limit:
            self._freed.clear()
            await self._freed.wait()

    def close(self) -> None:
        """No more requests will come: iteration ends after the last answer."""
        self._closed = True
        self._arrived.set()

    def cancel(self) -> None:
        """Give up what is in flight: the client is gone."""
        for future in list(self._open):
            future.remove_done_callback(self._on_done)
            future.cancel()
        self._open.clear()
        self._done.clear()
        self.close()

    async def __aiter__(self) -> AsyncIterator[tuple[T, Envelope]]:
        async for bundle in self.bundles(1):
            yield bundle[0]

    async def bundles(self, most: int) -> AsyncIterator[list[tuple[T, Envelope]]]:
        """The answers that are there at the same moment, at most `most` of them and about `BUNDLE_BYTES` of documents."""
        while True:
            bundle = self._take(most)
            if bundle:
                self._writing = len(bundle)
                yield bundle
                self._writing = 0
                self._freed.set()
            elif self._closed and not self._open:
                return
            else:
                self._arrived.clear()
                await self._arrived.wait()

    def _take(self, most: int) -> list[tuple[T, Envelope]]:
        bundle: list[tuple[T, Envelope]] = []
        size = 0
        while len(bundle) < most and size < BUNDLE_BYTES and (item := self._next()) is not None:
            answer = result_of(item[1])
            bundle.append((item[0], answer))
            size += len(answer.body)
        return bundle

    def _next(self) -> tuple[T, asyncio.Future[Envelope]] | None:
        if self._done:
            return self._done.popleft()
        if self._in_order and self._open:
            first = next(iter(self._open))
            if first.done():
                return self._open.pop(first), first
        return None

    def _on_done(self, future: asyncio.Future[Envelope]) -> None:
        if not self._in_order and future in self._open:  # else `cancel` came in the same turn of the loop
            self._done.append((self._open.pop(future), future))
        self._arrived.set()


async def answer_to(future: asyncio.Future[Envelope]) -> Envelope:
    """The answer, once it is there. Raises `CancelledError` only when the waiting task itself is cancelled, which cancels the request."""
    try:
        return await future
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return result_of(future)
    except Exception:
        return result_of(future)


def result_of(future: asyncio.Future[Envelope]) -> Envelope:
    """The answer of a finished request. A dispatcher never fails for a request, so an exception here is our own fault: logged, INTERNAL."""
    if future.cancelled():
        return Envelope("", status=Status(Code.CANCELLED, "the request was cancelled", "Cancelled"))
    error = future.exception()
    if error is None:
        return future.result()
    logger.error("a request failed inside the gateway", exc_info=error)
    return Envelope("", status=Status(Code.INTERNAL, "the gateway failed on this request", type(error).__name__))
