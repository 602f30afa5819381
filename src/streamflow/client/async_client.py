"""The client for asyncio programs: answers are yielded as they come."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partialmethod
from types import TracebackType
from typing import Any

from . import latency
from .base import Callback, ClientBase, Pairs, Parameters, Post
from .retry import Backoff


class AsyncClient(ClientBase):
    """`Client(asyncio=True)`. May be used on several event loops, one after the other or at the same time; each gets its own connection.

    `async with` or `close()` closes the connection; otherwise it closes with its event loop.
    """

    def post(
        self,
        on: str,
        inputs: Any = None,
        on_done: Callback | None = None,
        on_error: Callback | None = None,
        on_always: Callback | None = None,
        parameters: Parameters = None,
        target_executor: str | None = None,
        request_size: int = 100,
        show_progress: bool = False,
        continue_on_error: bool = False,
        return_responses: bool = False,
        max_attempts: int = 1,
        initial_backoff: float = 0.5,
        max_backoff: float = 2.0,
        backoff_multiplier: float = 1.5,
        results_in_order: bool = False,
        stream: bool = True,
        prefetch: int | None = None,
        return_type: Any = None,
        compression: str | None = None,
        timeout: float | None = None,
        metadata: Pairs = None,
        headers: Pairs = None,
    ) -> AsyncIterator[Any]:
        """Send `inputs` to endpoint `on`; yields the documents of each answer as it comes, or the `DataRequest` with `return_responses`.

        Arguments and errors are those of `SyncClient.post`; `inputs` may also be an async generator (function), callbacks coroutine
        functions. Answers that failed but were handled (`on_error`, `continue_on_error`) are yielded with `return_responses` only.
        Nothing is sent before the first iteration; leaving the loop early cancels what is open.
        """
        post = self._plan(
            on,
            inputs,
            on_done=on_done,
            on_error=on_error,
            on_always=on_always,
            parameters=parameters,
            target_executor=target_executor,
            request_size=request_size,
            show_progress=show_progress,
            continue_on_error=continue_on_error,
            return_responses=return_responses,
            backoff=Backoff(max(max_attempts, 1), initial_backoff, max_backoff, backoff_multiplier),
            in_order=results_in_order,
            stream=stream,
            prefetch=prefetch,
            return_type=return_type,
            compression=compression,
            timeout=timeout,
            metadata=metadata,
            headers=headers,
        )
        return self._results(post)

    index = partialmethod(post, "/index")
    search = partialmethod(post, "/search")
    update = partialmethod(post, "/update")
    delete = partialmethod(post, "/delete")

    def stream_doc(
        self,
        on: str,
        inputs: Any = None,
        parameters: Parameters = None,
        target_executor: str | None = None,
        return_type: Any = None,
        compression: str | None = None,
        timeout: float | None = None,
        metadata: Pairs = None,
        headers: Pairs = None,
    ) -> AsyncIterator[Any]:
        """Send one document to a streaming endpoint; yields its documents as they come; leaving the loop early ends it there.

        A slow reader holds the endpoint back. Jina's own servers take no parameters over HTTP, and do not stream over WebSocket.
        Raises as `post` does, after the documents that came before.
        """
        post = self._plan(
            on,
            inputs,
            parameters=parameters,
            target_executor=target_executor,
            return_type=return_type,
            compression=compression,
            timeout=timeout,
            metadata=metadata,
            headers=headers,
        )
        return self._streamed(post)

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

    async def close(self) -> None:
        """Close the connection of the running event loop. May be called twice; the next call connects again."""
        await self._connections.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _results(self, post: Post) -> AsyncIterator[Any]:
        async with aclosing(self._answers(post, None)) as answers:
            async for response in answers:
                if post.return_responses:
                    yield response
                elif response.ok:
                    docs = response.docs
                    yield docs[0] if post.bare and len(docs) == 1 else docs
