"""A link made of independent calls: one task for each request. Unary gRPC and HTTP are of this kind."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from .results import DataRequest
from .transport import Outgoing


class TaskLink(ABC):
    """Subclasses say how one request is asked; `call` raises errors of `errors.TRANSIENT` where sending again may help."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def encode(self, request: Outgoing) -> None: ...

    @abstractmethod
    async def call(self, request: Outgoing) -> DataRequest: ...

    async def send(self, request: Outgoing) -> None:
        task = asyncio.create_task(self._run(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        request.answer.add_done_callback(lambda answer: answer.cancelled() and task.cancel())
        await asyncio.sleep(0)  # this request goes out before the next one is encoded

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, request: Outgoing) -> None:
        answer = request.answer
        try:
            response = await self.call(request)
        except Exception as error:  # whatever it is belongs to the one who waits
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(response)
