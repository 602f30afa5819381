"""A TCP proxy before a broker, which can fall silent without closing anything, as a pulled cable does."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit


class Proxy:
    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 4222)
        self._silent: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.accepted = 0

    @property
    def url(self) -> str:
        assert self._server is not None
        return "nats://{}:{}".format(*self._server.sockets[0].getsockname())

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    def fall_silent(self) -> None:
        """Nothing more comes through on the connections that are open; new ones work."""
        self._silent |= self._open

    def cut(self) -> None:
        """Close what is open; new connections work."""
        for writer in self._open:
            writer.close()
        self._open.clear()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._open:
            writer.close()

    async def _accept(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        self.accepted += 1
        far_in, far_out = await asyncio.open_connection(*self._target)
        self._open |= {near_out, far_out}
        for source, sink in ((near_in, far_out), (far_in, near_out)):
            task = asyncio.create_task(self._copy(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if sink not in self._silent:
                    sink.write(data)
                    await sink.drain()
        if sink not in self._silent:
            sink.close()
