"""The event loop behind all synchronous clients of a process: one daemon thread, started by the first of them, drained at exit.

Only I/O and the codec run there. A caller's generators and callbacks run in the caller's own thread, so they may use thread-bound objects,
block, and call the client again.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import os
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_log = logging.getLogger(__name__)
_DRAIN_S = 3.0
_guard = threading.Lock()
_current: Background | None = None


class Background:
    """One event loop in a thread."""

    def __init__(self) -> None:
        import uvloop  # 1 MB that a program with an event loop of its own has no use for

        self.pid = os.getpid()
        self.loop = uvloop.new_event_loop()
        self.loop.set_exception_handler(_report)
        self._thread = threading.Thread(target=self._serve, name="streamflow-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, run on the loop while this thread waits."""
        return self.submit(work).result()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start `work` on the loop. Raises `RuntimeError` on the loop's own thread, which would wait for itself."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a synchronous client was called on its own event loop: use Client(asyncio=True) in async generators")
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self) -> None:
        """Cancel what runs, wait for it, end the thread."""
        if self.loop.is_closed() or os.getpid() != self.pid:
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_DRAIN_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class Caller:
    """Runs functions in the thread that called post(), on request of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = queue.SimpleQueue()

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """On the loop: what `function` returns or raises in the caller's thread."""
        future = self._loop.create_future()
        self._jobs.put((future, function, arguments))
        return await future

    def serve(self, work: concurrent.futures.Future[T]) -> T:
        """In the caller's thread: run jobs until `work` is done. An interrupt (Ctrl-C) cancels it."""
        work.add_done_callback(lambda _: self._jobs.put(None))
        try:
            while (job := self._jobs.get()) is not None:
                self._do(*job)
        except BaseException:
            work.cancel()
            raise
        return work.result()

    def _do(self, future: asyncio.Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            result = function(*arguments)
        except Exception as error:
            self._loop.call_soon_threadsafe(_settle, future, None, error)
        else:
            self._loop.call_soon_threadsafe(_settle, future, result, None)


def background() -> Background:
    """The loop of this process, started if need be; a forked child gets its own."""
    global _current
    with _guard:
        if _current is None or _current.pid != os.getpid() or _current.loop.is_closed():
            _current = Background()
            atexit.register(_current.stop)
        return _current


def iterate(source: AsyncGenerator[T, None]) -> Iterator[T]:
    """The items of `source`, which lives on the background loop, in this thread."""
    home = background()

    async def following() -> T:
        return await anext(source)

    async def ending() -> None:
        await source.aclose()

    try:
        while True:
            try:
                item = home.run(following())
            except StopAsyncIteration:
                return
            yield item
    finally:
        home.run(ending())


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # no future can carry it
        future.set_exception(RuntimeError("StopIteration raised by a callback"))
    else:
        future.set_exception(error)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # grpc.aio wakes all event loops of a process by one socket; the one that comes second finds it empty (grpc/grpc#25364). Harmless.
    if not isinstance(context.get("exception"), BlockingIOError):
        _log.error("%s", context.get("message"), exc_info=context.get("exception"))
