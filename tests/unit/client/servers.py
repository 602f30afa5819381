"""Real servers for the client tests, each in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.unit.client.backend import Backend
from tests.unit.client.grpc_servers import GrpcServer
from tests.unit.client.http_servers import HttpServer

KINDS = ("grpc", "jina", "http", "websocket")


class Running:
    """A server in a thread; `stop()` and `start()` keep its port."""

    def __init__(self, make: Callable[[Backend], Any]) -> None:
        self.loop = asyncio.new_event_loop()
        # grpc.aio wakes every event loop of the process at once; those that find nothing complain (grpc/grpc#25364).
        self.loop.set_exception_handler(lambda loop, context: None)
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._make = make
        self.port = 0
        self.start()

    def start(self) -> None:
        async def begin() -> None:
            self.backend = Backend()
            self.server = self._make(self.backend)
            self.port = await self.server.start(self.port)

        self.run(begin())

    def stop(self) -> None:
        self.run(self.server.stop())

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


_MAKERS: dict[str, Callable[[Backend], Any]] = {
    "grpc": lambda backend: GrpcServer(backend, own_too=True),
    "jina": lambda backend: GrpcServer(backend, own_too=False),
    "http": HttpServer,
    "websocket": HttpServer,
    "listed": lambda backend: HttpServer(backend, listed=("/echo", "/default")),
}


@contextmanager
def serving(kind: str) -> Iterator[Running]:
    """A running server of `kind`; stopped at the end."""
    running = Running(_MAKERS[kind])
    try:
        yield running
    finally:
        running.stop()
        running.close()


def protocol(kind: str) -> str:
    """The client's `protocol=` for a server kind."""
    return {"jina": "grpc", "listed": "http"}.get(kind, kind)
