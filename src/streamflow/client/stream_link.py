"""A link made of one stream that carries all requests of a post(): a gRPC call or a WebSocket."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from .errors import ServerUnavailable, error_of
from .results import DataRequest
from .transport import Outgoing

_FINISH_S = 1.0


class StreamLink(ABC):
    """Opens the stream on the first request, and again after it broke. Answers find their request by its id."""

    def __init__(self) -> None:
        self._writing = asyncio.Lock()
        self._waiting: dict[str, Outgoing] = {}
        self._reader: asyncio.Task[None] | None = None

    @abstractmethod
    async def encode(self, request: Outgoing) -> None: ...

    @abstractmethod
    async def open(self) -> None:
        """Connect; called again after a failure. Raises our errors."""

    @abstractmethod
    async def write(self, request: Outgoing) -> None:
        """Send, or have it sent. When the stream has ended, `receive` says why."""

    @abstractmethod
    async def receive(self) -> DataRequest | None:
        """The next answer, None at the end of the stream. Raises our errors."""

    @abstractmethod
    async def finish(self) -> None:
        """Say that no more requests come; the server then ends the stream."""

    @abstractmethod
    async def abort(self) -> None:
        """Drop the stream as it is. May be called twice."""

    async def send(self, request: Outgoing) -> None:
        async with self._writing:
            if self._reader is None or self._reader.done():
                await self._start()
            self._waiting[request.request_id] = request
            try:
                await self.write(request)
            except Exception:
                self._waiting.pop(request.request_id, None)
                raise

    async def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is None:
            return
        if not self._waiting and not reader.done():
            await self._finish(reader)
        await self.abort()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)

    async def _start(self) -> None:
        await self.abort()
        await self.open()
        self._reader = asyncio.create_task(self._read())

    async def _finish(self, reader: asyncio.Task[None]) -> None:
        """An orderly end, so that no server logs an interrupted stream."""
        try:
            async with asyncio.timeout(_FINISH_S):
                await self.finish()
                await asyncio.wait([reader])
        except TimeoutError:
            pass

    async def _read(self) -> None:
        failure: BaseException = ServerUnavailable("the server ended the stream before all answers had come")
        try:
            while (response := await self.receive()) is not None:
                self._deliver(response)
        except Exception as error:  # also an answer that cannot be read: nobody may be left waiting
            failure = error
        finally:
            self._fail(failure)

    def _deliver(self, response: DataRequest) -> None:
        request = self._waiting.pop(response.request_id, None)
        if request is not None:
            if not request.answer.done():
                request.answer.set_result(response)
        elif not response.ok and not response.request_id:
            raise error_of(response.status, "")  # the server could not read a request, nobody knows which

    def _fail(self, failure: BaseException) -> None:
        waiting, self._waiting = self._waiting, {}
        for request in waiting.values():
            if not request.answer.done():
                request.answer.set_exception(failure)
