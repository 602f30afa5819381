"""The client for asyncio programs: answers are yielded as they come."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any

from streamflow.jobs.calls import Work
from streamflow.jobs.handle import AsyncJob
from streamflow.jobs.status import JobStatus

from . import latency
from .base import ClientBase
from .judge import answers, documents
from .plan import Pairs, Post
from .results import DataRequest

if TYPE_CHECKING:
    from .letters import AsyncDeadLetters


class AsyncClient(ClientBase[AsyncIterator[Any], AsyncIterator[Any], Awaitable[AsyncJob], Awaitable[list[JobStatus]], AsyncJob]):
    """`Client(asyncio=True)`. May be used on several event loops, one after the other or at the same time; each gets its own connection.

    `async with` or `close()` closes the connection; otherwise it closes with its event loop. `inputs` may be async generators (functions)
    and callbacks coroutine functions. Answers that failed but were handled (`on_error`, `continue_on_error`) are yielded with
    `return_responses` only. Nothing is sent before the first iteration; leaving the loop early cancels what is open.
    """

    async def is_flow_ready(self, timeout: float = 3.0, metadata: Pairs = None) -> bool:
        """Whether the gateway answers within `timeout` seconds and has a worker for every executor. A server that is down gives False."""
        return await self._ready(timeout, metadata)

    is_deployment_ready = is_flow_ready
    dry_run = is_flow_ready

    async def profiling(self, show_table: bool = True) -> dict[str, float]:
        """Milliseconds that one empty request to `/` spends in each place, printed as a tree unless `show_table` is off."""
        started = time.perf_counter()
        response = await anext(self.post("/", return_responses=True))
        parts = latency.breakdown(response, time.perf_counter() - started)
        if show_table:
            latency.show(parts)
        return parts

    async def result(
        self, request_id: str, *, return_type: Any = None, wait: bool = True, timeout: float | None = None, metadata: Pairs = None
    ) -> DataRequest | None:
        """The answer of an earlier request that was kept, whoever sent it; None while it is under way and `wait` is off.

        Raises `NotFound` for an id that is unknown or has expired, and the error that the request ended with.
        """
        return await self._result(request_id, return_type, wait, timeout, metadata)

    def dead_letters(self, flow: str | None = None) -> AsyncDeadLetters:
        """What executors of `flow` gave up on. Over nats:// only."""
        return self._letters(flow)

    async def close(self) -> None:
        """Close the connection of the running event loop. May be called twice; the next call connects again."""
        await self._connections.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _run(self, post: Post) -> AsyncIterator[Any]:
        async with aclosing(answers(post, self._connections, None)) as responses:
            async for response in responses:
                if post.return_responses:
                    yield response
                elif response.ok:
                    docs = response.docs
                    yield docs[0] if post.bare and len(docs) == 1 else docs

    async def _one(self, work: Work) -> AsyncJob:
        return await work(None)

    async def _many(self, work: Callable[[], Coroutine[Any, Any, list[JobStatus]]]) -> list[JobStatus]:
        return await work()

    def _handle(self, job: AsyncJob) -> AsyncJob:
        return job

    def _stream(self, post: Post) -> AsyncIterator[Any]:
        return documents(post, self._connections)
