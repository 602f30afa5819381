"""The handle on a job: `AsyncJob` does everything, `Job` is the same for programs without an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

from streamflow.broker.errors import Unavailable
from streamflow.broker.json_lines import Faults
from streamflow.client.background import background, iterate
from streamflow.client.results import element_type

from .backend import Backend
from .bar import JobBar
from .status import JobResponse, JobStatus, JobTimeout

T = TypeVar("T")
PATIENCE_S = 30.0  # how long a broker or gateway may be away before a wait gives up
FIRST_PATIENCE_S = 3.0  # and when it was never seen at all
RETRY_S = 0.25
FIRST_LOOK_S, LOOK_GROWTH, LAST_LOOK_S = 0.05, 1.1, 1.0  # a job's end is seen within a tenth of its time


class AsyncJob:
    """A job of a flow. Holds nothing but its name: any number of handles, in any process, stand for the same job.

    `gone`: of a replay, how many of the inputs have expired since. `skipped`: lines of its file that could not be read.
    """

    def __init__(
        self, backend: Callable[[], Backend], job_id: str, flow: str = "", *, gone: int = 0, skipped: Faults | None = None
    ) -> None:
        """`backend` gives the connection of the running event loop."""
        self._backend = backend
        self.id = job_id
        self.flow = flow
        self.gone = gone
        self.skipped = skipped or Faults()

    async def status(self) -> JobStatus:
        """How far it is, now. Raises `NotFound` for an unknown or expired job."""
        return await self._backend().status(self.flow, self.id)

    async def results(self, return_type: Any = None, start: int = 0, follow: bool = True) -> AsyncGenerator[JobResponse, None]:
        """One response for each stored request, each once, in the order in which they were recorded: an error is one too (`ok`, `status`).

        Those that are there at once, the others as they come, until the last one or the job is cancelled; without `follow` only those that
        are there. `start`: the `cursor` of the last response that was handled. A lost connection is made again.
        """
        doc_type, _ = element_type(return_type)
        lost = _Patience()
        while True:
            try:
                async with aclosing(self._backend().results(self.flow, self.id, start, follow, doc_type)) as responses:
                    async for response in responses:
                        lost.over()
                        start = response.cursor
                        yield response
                return
            except Unavailable as error:
                await lost.bear(error)

    async def wait(self, timeout: float | None = None, show_progress: bool = False) -> JobStatus:
        """Return when every stored request has its outcome, or the job is cancelled. Raises `JobTimeout` after `timeout` seconds.

        A broker or gateway may be away for half a minute meanwhile.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        lost, look_s = _Patience(), FIRST_LOOK_S
        with JobBar(self.id, show_progress) as bar:
            while True:
                try:
                    status = await self.status()
                    lost.over()
                    bar.show(status)
                    if status.is_over:
                        return status
                except Unavailable as error:
                    await lost.bear(error)
                    continue
                left_s = look_s if limit is None else limit - time.monotonic()
                if left_s <= 0:
                    raise JobTimeout(f"job {self.id}: {status.done} of {status.total} requests are done after {timeout:g} s")
                await asyncio.sleep(min(look_s, left_s))
                look_s = min(LOOK_GROWTH * look_s, LAST_LOOK_S)

    async def cancel(self) -> JobStatus:
        """Run nothing more of it; results that are recorded stay."""
        return await self._backend().control(self.flow, self.id, "cancel")

    async def pause(self) -> JobStatus:
        """Start nothing more of it until `resume`. Raises `NotFound` when all of it is with the workers already."""
        return await self._backend().control(self.flow, self.id, "pause")

    async def resume(self) -> JobStatus:
        return await self._backend().control(self.flow, self.id, "resume")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, flow={self.flow!r})"


class Job:
    """See `AsyncJob`, whose methods these are, for programs without an event loop."""

    def __init__(self, job: AsyncJob) -> None:
        self._job = job

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def flow(self) -> str:
        return self._job.flow

    @property
    def gone(self) -> int:
        """Of a replay: how many of the inputs have expired since they were stored."""
        return self._job.gone

    @property
    def skipped(self) -> Faults:
        """Lines of the file that could not be read."""
        return self._job.skipped

    def status(self) -> JobStatus:
        return run(self._job.status())

    def results(self, return_type: Any = None, start: int = 0, follow: bool = True) -> Iterator[JobResponse]:
        """See `AsyncJob.results`."""
        return iterate(self._job.results(return_type, start, follow))

    def wait(self, timeout: float | None = None, show_progress: bool = False) -> JobStatus:
        """See `AsyncJob.wait`."""
        return run(self._job.wait(timeout, show_progress))

    def cancel(self) -> JobStatus:
        """See `AsyncJob.cancel`."""
        return run(self._job.cancel())

    def pause(self) -> JobStatus:
        """See `AsyncJob.pause`."""
        return run(self._job.pause())

    def resume(self) -> JobStatus:
        return run(self._job.resume())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, flow={self.flow!r})"


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, run on the clients' event loop; an interrupt (Ctrl-C) ends it there too."""
    future = background().submit(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class _Patience:
    """How long somebody who waits bears that nobody answers."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._allowed_s = FIRST_PATIENCE_S

    def over(self) -> None:
        self._since, self._allowed_s = None, PATIENCE_S

    async def bear(self, error: Unavailable) -> None:
        """Pause before the next attempt. Raises `error` when the last answer is too long ago."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since > self._allowed_s:
            raise error
        await asyncio.sleep(RETRY_S)
