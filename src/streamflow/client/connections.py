"""The transports of one client: one for each event loop it is used on, closed with the client or with the loop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable

from .transport import Transport


class Connections:
    """Makes a transport on first use. A keeper task owns it: `asyncio.run()` cancels its tasks at the end, so even a client that is
    never closed leaves no open socket and no warning behind.
    """

    def __init__(self, make: Callable[[], Transport]) -> None:
        self._make = make
        self._open: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Transport, asyncio.Task[None]]]
        self._open = weakref.WeakKeyDictionary()

    def get(self) -> Transport:
        """The transport of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._open.get(loop)
        if found is not None and not found[1].done():
            return found[0]
        transport = self._make()
        keeper = loop.create_task(_keep(transport), name="streamflow connection")
        self._open[loop] = (transport, keeper)
        # The collector of cycles would take a task that only the client knows of together with it, before it could close anything.
        forgotten = weakref.finalize(self, _let_go, keeper)
        forgotten.atexit = False
        keeper.add_done_callback(lambda _: forgotten.detach())
        return transport

    async def close(self) -> None:
        """Close the transport of the running loop; a later `get` makes a new one. May be called twice."""
        found = self._open.pop(asyncio.get_running_loop(), None)
        if found is not None:
            found[1].cancel()
            await asyncio.wait([found[1]])


async def _keep(transport: Transport) -> None:
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await transport.close()


def _let_go(keeper: asyncio.Task[None]) -> None:
    """The client was collected while its loop runs on."""
    loop = keeper.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(keeper.cancel)
