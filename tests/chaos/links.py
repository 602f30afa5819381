"""The network between the servers of a cluster, as a process of its own: one TCP proxy for each ordered pair.

Started as `python links.py <JSON>`, a list of `[port, target port, from, to]`. Reads commands from stdin, a line each: `silence NAME`
(nothing passes to or from NAME, in either direction, and all of it does later, as with a pulled cable), `cut NAME` (its connections break
and new ones are refused), `heal`. Answers each with a line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

LIMIT_BYTES = 1 << 20


class End(asyncio.Protocol):
    """One end of a connection through a link; what it reads goes to the `other` one."""

    def __init__(self, link: Link, other: End | None = None) -> None:
        self.link = link
        self.other = other
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(LIMIT_BYTES)
        self.link.ends.add(self)
        if self.other is not None:
            self.other.joined(self)
        elif self.link.is_cut:
            self.transport.abort()
        else:
            self.link.join(self)
        if self.link.is_silent:
            self.transport.pause_reading()

    def joined(self, other: End) -> None:
        """The connection to the other side is there."""
        self.other = other
        for data in self._early:
            other.send(data)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self.other.send(data)

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.link.is_silent:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.link.ends.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Link:
    """The way from one server to another's route port, and back."""

    def __init__(self, port: int, target: int, *names: str) -> None:
        self.port = port
        self._target = target
        self.names = names
        self.is_silent = self.is_cut = False
        self.ends: set[End] = set()
        self._waiting: list[End] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def join(self, near: End) -> None:
        """Connect `near` to the target; not before there is a way."""
        if self.is_silent:
            self._waiting.append(near)
            return
        task = asyncio.get_running_loop().create_task(self._connect(near))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, near: End) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: End(self, near), "127.0.0.1", self._target)
        except OSError:
            assert near.transport is not None
            near.transport.abort()

    def silence(self) -> None:
        self.is_silent = True
        for end in self.ends:
            assert end.transport is not None
            end.transport.pause_reading()

    def cut(self) -> None:
        self.is_cut = True
        for end in [*self.ends]:
            assert end.transport is not None
            end.transport.abort()

    def heal(self) -> None:
        self.is_silent = self.is_cut = False
        for end in self.ends:
            assert end.transport is not None
            end.transport.resume_reading()
        waiting, self._waiting = self._waiting, []
        for end in waiting:
            self.join(end)


async def main(given: list[tuple[int, int, str, str]]) -> None:
    loop = asyncio.get_running_loop()
    links = [Link(*each) for each in given]
    for link in links:
        await loop.create_server(lambda link=link: End(link), "127.0.0.1", link.port)  # type: ignore[misc]
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        what, _, name = line.strip().partition(" ")
        for link in links:
            if what == "heal" or name in link.names:
                {"silence": link.silence, "cut": link.cut, "heal": link.heal}[what]()
        print(what, flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
