"""The client that blocks: results are collected, callbacks and generators run in the thread of the caller."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import aclosing
from functools import partialmethod
from types import TracebackType
from typing import Any

from . import latency
from .background import Caller, background, iterate
from .base import Callback, ClientBase, Pairs, Parameters, Post
from .inputs import InCaller
from .results import doc_list
from .retry import Backoff


class SyncClient(ClientBase):
    """A client for programs without an event loop. Threads may share one; inside of a running event loop it works too, and blocks it."""

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
    ) -> Any:
        """Send `inputs` to endpoint `on`, in requests of `request_size` documents (all in one when <= 0).

        `inputs`: a document, a list, a DocList, an iterable, a function that returns one of these, or None for `parameters` alone.
        Iterables are read as requests leave: at most `prefetch` requests are open at a time (0 = no limit).

        Returns the documents of all answers as `return_type`, `DocList[Out]`; for a document class `Out` and one single result that
        document; with `return_responses` a list of `DataRequest`; with `on_done` or `on_always` None. Failed requests add no documents.
        Order is that of completion, or of the input with `results_in_order`. Without callbacks all results are held in memory.

        A failed request goes to `on_error`, else is logged with `continue_on_error`, else raises the class of its code:
        `ExecutorError` when an executor raised, `InvalidInput`, `NotFound`, `Overloaded`, ... Connection failures and passed deadlines
        always raise (`ServerUnavailable`, `RequestTimeout`: both are `ConnectionError`), after `max_attempts` with the same request id; the
        pause before attempt n + 1 is random in [0, min(initial_backoff * backoff_multiplier**(n-1), max_backoff)] seconds.

        `timeout`: seconds each attempt of a request may take. `stream=False`: independent calls instead of one stream (gRPC).
        `compression`: 'Gzip' or 'Deflate' (gRPC). `metadata` and `headers` go out as gRPC metadata or HTTP headers.
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
        home = background()
        caller = Caller(home.loop)
        return caller.serve(home.submit(self._collect(post, caller.run)))

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
    ) -> Iterator[Any]:
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
        return iterate(self._streamed(post))

    def is_flow_ready(self, timeout: float = 3.0, metadata: Pairs = None) -> bool:
        """Whether the gateway answers within `timeout` seconds and has a worker for every executor. A server that is down gives False."""
        return background().run(self._ready(timeout, metadata))

    is_deployment_ready = is_flow_ready
    dry_run = is_flow_ready

    def profiling(self, show_table: bool = True) -> dict[str, float]:
        """Milliseconds that one empty request to `/` spends in each place, printed as a tree unless `show_table` is off."""
        started = time.perf_counter()
        response = self.post("/", return_responses=True)[0]
        parts = latency.breakdown(response, time.perf_counter() - started)
        if show_table:
            latency.show(parts)
        return parts

    def close(self) -> None:
        """Close the connection. May be called twice; the next call connects again."""
        background().run(self._connections.close())

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def _collect(self, post: Post, in_caller: InCaller) -> Any:
        found: list[Any] = []
        forgets = post.on_done is not None or post.on_always is not None
        async with aclosing(self._answers(post, in_caller)) as answers:
            async for response in answers:
                if forgets:
                    continue
                if post.return_responses:
                    found.append(response)
                elif response.ok:
                    found.extend(response.decode_docs())
        if forgets:
            return None
        if post.return_responses:
            return found
        return found[0] if post.bare and len(found) == 1 else doc_list(post.ask.doc_type, found)
