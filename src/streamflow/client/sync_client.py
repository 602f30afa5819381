"""The client that blocks: results are collected, callbacks and generators run in the thread of the caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any

from streamflow.jobs.calls import Work
from streamflow.jobs.handle import AsyncJob, Job
from streamflow.jobs.status import JobStatus

from . import latency
from .background import Caller, background, iterate
from .base import ClientBase
from .inputs import InCaller
from .judge import answers, documents
from .plan import Pairs, Post
from .results import DataRequest, doc_list

if TYPE_CHECKING:
    from .letters import DeadLetters


class SyncClient(ClientBase[Any, Iterator[Any], Job, list[JobStatus], Job]):
    """A client for programs without an event loop. Threads may share one; inside of a running event loop it works too, and blocks it."""

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

    def result(
        self, request_id: str, *, return_type: Any = None, wait: bool = True, timeout: float | None = None, metadata: Pairs = None
    ) -> DataRequest | None:
        """The answer of an earlier request that was kept, whoever sent it; None while it is under way and `wait` is off.

        Raises `NotFound` for an id that is unknown or has expired, and the error that the request ended with.
        """
        return background().run(self._result(request_id, return_type, wait, timeout, metadata))

    def dead_letters(self, flow: str | None = None) -> DeadLetters:
        """What executors of `flow` gave up on. Over nats:// only."""
        from .letters import DeadLetters  # loads nats

        return DeadLetters(self._letters(flow))

    def close(self) -> None:
        """Close the connection. May be called twice; the next call connects again."""
        background().run(self._connections.close())

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _run(self, post: Post) -> Any:
        home = background()
        caller = Caller(home.loop)
        return caller.serve(home.submit(self._collect(post, caller.run)))

    def _one(self, work: Work) -> Job:
        home = background()
        caller = Caller(home.loop)
        return Job(caller.serve(home.submit(work(caller.run))))

    def _many(self, work: Callable[[], Coroutine[Any, Any, list[JobStatus]]]) -> list[JobStatus]:
        return background().run(work())

    def _handle(self, job: AsyncJob) -> Job:
        return Job(job)

    def _stream(self, post: Post) -> Iterator[Any]:
        return iterate(documents(post, self._connections))

    async def _collect(self, post: Post, in_caller: InCaller) -> Any:
        found: list[Any] = []
        forgets = post.on_done is not None or post.on_always is not None
        async with aclosing(answers(post, self._connections, in_caller)) as responses:
            async for response in responses:
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
