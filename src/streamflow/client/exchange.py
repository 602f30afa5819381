"""The requests of one post(): as many of them in flight or waiting for the caller as `prefetch` allows, sent again when a connection fails.

A feeder task waits for room, pulls input, sends; answers arrive as futures; the caller iterates. There is room again when the caller has
taken an answer, so a slow caller holds back the input, and memory stays bounded whatever the server does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from .errors import TRANSIENT, RequestTimeout, ServerUnavailable, is_connectivity
from .inputs import Docs
from .prefetch import Prefetch
from .results import DataRequest
from .retry import Backoff
from .transport import Link, Outgoing


class Exchange:
    """Sends the chunks of `source` over `link` and yields the answers, in completion order or in input order.

    Raises when a request fails for good by an error that is not an answer (connection, deadline, input that cannot be encoded).
    """

    def __init__(
        self,
        link: Link,
        source: AsyncGenerator[Docs, None],
        *,
        prefetch: Prefetch,
        in_order: bool = False,
        timeout_s: float | None = None,
        backoff: Backoff,
        request_id: str = "",
    ) -> None:
        self._link = link
        self._source = source
        self._prefetch = prefetch
        self._timeout_s = timeout_s
        self._backoff = backoff
        self._request_id = request_id
        self._order = _InOrder() if in_order else _AsTheyCome()
        self._flight: dict[str, Outgoing] = {}  # by age of the latest attempt, oldest first
        self._finished: asyncio.Queue[Outgoing | None] = asyncio.Queue()  # None = the feeder has ended
        self._failed: list[Outgoing] = []
        self._may_send = asyncio.Event()
        self._fed = False

    async def responses(self) -> AsyncGenerator[DataRequest, None]:
        """The answers. Closing the iterator early cancels what is open."""
        self._may_send.set()
        feeder = asyncio.create_task(self._feed(), name="streamflow post")
        feeder.add_done_callback(lambda _: self._finished.put_nowait(None))
        try:
            while (response := await self._next(feeder)) is not None:
                self._prefetch.taken(response)
                yield response
        finally:
            await self._stop(feeder)

    async def _feed(self) -> None:
        sequence = 0
        async with aclosing(self._source) as source:
            while True:
                await self._prefetch.room()
                docs = await anext(source, None)
                if docs is None:
                    return
                await self._may_send.wait()
                await self._send(self._outgoing(docs, sequence))
                sequence += 1

    def _outgoing(self, docs: Docs, sequence: int) -> Outgoing:
        if not self._request_id:
            return Outgoing(docs, sequence)
        return Outgoing(docs, sequence, f"{self._request_id}-{sequence}" if sequence else self._request_id)

    async def _send(self, request: Outgoing) -> None:
        loop = asyncio.get_running_loop()
        request.attempts += 1
        request.is_last = request.attempts >= self._backoff.max_attempts
        request.sent = loop.time()
        request.answer = loop.create_future()
        request.answer.add_done_callback(lambda answer: self._arrived(request, answer))
        self._flight[request.request_id] = request
        self._prefetch.sent(request)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._link.encode(request)
                self._prefetch.sent(request)
                await self._link.send(request)
        except TimeoutError:
            request.answer.cancel()
        except TRANSIENT as error:
            if not request.answer.done():
                request.answer.set_exception(error)

    def _arrived(self, request: Outgoing, answer: asyncio.Future[DataRequest]) -> None:
        """Count the answer as soon as it is there: the caller may take its time."""
        if not answer.cancelled() and answer.exception() is None:
            if answer.result().ok:
                request.body = b""  # it is not sent again
            self._prefetch.answered(request, answer.result())
        self._finished.put_nowait(request)

    async def _next(self, feeder: asyncio.Task[None]) -> DataRequest | None:
        """The next answer for the caller, None at the end."""
        while not self._order.ready:
            if self._failed and self._finished.empty():
                await self._send_again()
            elif self._fed and not self._flight:
                return None
            else:
                request = await self._await_one()
                if request is not None:
                    self._settle(request)
                elif feeder.done():
                    self._fed = True
                    feeder.result()
        return self._order.ready.popleft()

    async def _await_one(self) -> Outgoing | None:
        """The next request that has an outcome. When nothing happens until then, the oldest one is given up at its deadline."""
        if self._timeout_s is None or not self._flight:
            return await self._finished.get()
        oldest = next(iter(self._flight.values()))
        try:
            async with asyncio.timeout_at(oldest.sent + self._timeout_s):
                return await self._finished.get()
        except TimeoutError:
            oldest.answer.cancel()
            return await self._finished.get()

    def _settle(self, request: Outgoing) -> None:
        del self._flight[request.request_id]
        outcome = self._outcome(request)
        if isinstance(outcome, DataRequest):
            self._prefetch.settled(request, outcome)
            self._order.put(request.sequence, outcome)
        elif isinstance(outcome, TRANSIENT) and not request.is_last:
            self._failed.append(request)
            self._may_send.clear()
        else:
            if isinstance(outcome, (ServerUnavailable, RequestTimeout)):
                outcome.request_id, outcome.attempts = request.request_id, request.attempts
            raise outcome

    def _outcome(self, request: Outgoing) -> DataRequest | BaseException:
        """The answer, or the error that takes its place; an answer that says UNAVAILABLE is such an error too."""
        if request.answer.cancelled():
            return RequestTimeout(f"no answer within {self._timeout_s} s")
        error = request.answer.exception()
        if error is not None:
            return error
        response = request.answer.result()
        if response.ok:
            return response
        reason = response.error()
        again = isinstance(reason, TRANSIENT) and not request.is_last
        return reason if again or is_connectivity(reason) else response

    async def _send_again(self) -> None:
        requests, self._failed = self._failed, []
        await asyncio.sleep(self._backoff.pause_s(max(request.attempts for request in requests)))
        for request in requests:
            await self._send(request)
        self._may_send.set()

    async def _stop(self, feeder: asyncio.Task[None]) -> None:
        # First what needs no waiting: the end of an event loop may cancel this clean-up at its first await.
        for request in self._flight.values():
            if not request.answer.cancel() and not request.answer.cancelled():
                request.answer.exception()  # marks it as seen
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
        await self._link.close()


class _AsTheyCome:
    def __init__(self) -> None:
        self.ready: deque[DataRequest] = deque()

    def put(self, sequence: int, response: DataRequest) -> None:
        self.ready.append(response)


class _InOrder(_AsTheyCome):
    def __init__(self) -> None:
        super().__init__()
        self._early: dict[int, DataRequest] = {}
        self._expected = 0

    def put(self, sequence: int, response: DataRequest) -> None:
        self._early[sequence] = response
        while self._expected in self._early:
            self.ready.append(self._early.pop(self._expected))
            self._expected += 1
