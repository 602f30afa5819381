"""What uvicorn has for each connection, as we want it: one write per loop turn, writers that wait early for clients that do not read, and
nothing left of it when it has gone.

Objects that know each other are found by collections of garbage only. Thousands of connections must not wait for one, as it would then
take long, and everybody else would wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from .auth_http import CERTIFICATE, certificate_names
from .http_io import BREAK
from .slow_clients import TimedProtocol

WRITE_BYTES = 8 << 10  # that a client has not read may wait here before its writer does; what the kernel takes is its own affair
_CORKED_BYTES = 4 << 10


class Corked:
    """A transport that writes once per loop turn: uvicorn writes head and body of an answer apart, and each write is a system call.

    What is large is written at once: only the transport knows whether its client reads, and makes the writer wait if not.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def write(self, data: bytes) -> None:
        if not data:
            return
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > _CORKED_BYTES:
            self._flush()

    def writelines(self, lines: Iterable[bytes]) -> None:
        self.write(b"".join(lines))

    def _flush(self) -> None:
        if self._waiting:
            data = self._waiting[0] if len(self._waiting) == 1 else b"".join(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            if not self._transport.is_closing():  # uvloop's raises once its client has gone
                self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class HttpConnection(TimedProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.set_write_buffer_limits(WRITE_BYTES)
        corked = Corked(transport, self.loop)
        super().connection_made(corked)  # type: ignore[arg-type]
        self.app_state = {**self.app_state, BREAK: corked.close}
        if names := certificate_names(transport):
            self.app_state[CERTIFICATE] = names

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment]  # which knows this object, and nobody else needs either any more


class SocketConnection(WebSocketsSansIOProtocol):
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.conn.parser.close()  # a generator, which knows `conn`
