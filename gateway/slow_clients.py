"""Cuts HTTP clients that take too long to say what they want (RFC 9110: 408), so that dribbling connections cannot be piled up.

Heads have a fixed time, bodies a fixed time and what their size needs at a very low rate. One sweep looks at all connections, so a time may
be half a second longer and a quick request costs next to nothing. A socket that became a WebSocket, and an answer under way, are none of
its business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from enum import Enum
from time import monotonic
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

SWEEP_S = 0.5
AT_ONCE = 100  # connections looked at before others may be served
LINGER_S = 0.3
SLOWEST_BYTES_PER_S = 1024
_TEXT = b"the request took too long to arrive"
_ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
    % (len(_TEXT), _TEXT)
)


class Phase(Enum):
    """What a connection waits for."""

    IDLE = "the first byte of its first request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    NOTHING = "an answer, or another request: uvicorn's own keep-alive counts"


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, looked at from time to time. Requests pay for the counting of their bodies' bytes and nothing else."""

    body_bytes = 0
    _seen: tuple[Phase, object] = (Phase.NOTHING, None)  # what was found at the last look, of which request
    _since = 0.0  # monotonic seconds
    _counted = 0  # body bytes until then

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self.body_bytes += len(body)

    def cut_if_late(self, now: float, head_s: float, body_s: float) -> None:
        """Close the connection if it is; one that the gateway itself does not read from at the moment is not."""
        phase = self._phase()
        if self._seen[0] is not phase or self._seen[1] is not self.scope:
            self._seen, self._since, self._counted = (phase, self.scope), now, self.body_bytes
        if phase is Phase.NOTHING or self.flow.read_paused or now - self._since <= self._allowed_s(phase, head_s, body_s):
            return
        log.info("%s took too long to send %s: cut", self.client, phase.value)
        is_answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if phase is Phase.IDLE or is_answering:
            self.transport.close()
        else:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Closing with unread bytes around would reset the connection and take the answer along: for a moment they are read and dropped."""
        self.transport.write(_ANSWER)
        self.connection_lost(TimeoutError())  # for uvicorn and the app the client is gone
        self.transport.set_protocol(asyncio.Protocol())
        self.loop.call_later(LINGER_S, self.transport.close)

    def _phase(self) -> Phase:
        """A new request has a new scope, from its first byte on; a cycle is made of it when its head is whole."""
        if self.scope is None:
            return Phase.IDLE
        if self.cycle is None or self.cycle.scope is not self.scope:
            return Phase.HEAD
        return Phase.BODY if self.cycle.more_body else Phase.NOTHING

    def _allowed_s(self, phase: Phase, head_s: float, body_s: float) -> float:
        if phase is Phase.BODY:
            return body_s + (self.body_bytes - self._counted) / SLOWEST_BYTES_PER_S
        return head_s if phase is Phase.HEAD else float(self.timeout_keep_alive)


async def cut_slow_clients(connections: Collection[Any], head_s: float, body_s: float) -> None:
    """Look after the open `connections` of a server until cancelled."""
    while True:
        await asyncio.sleep(SWEEP_S)
        await _sweep(connections, head_s, body_s)


async def _sweep(connections: Collection[Any], head_s: float, body_s: float) -> None:
    for number, connection in enumerate(list(connections), 1):
        if isinstance(connection, TimedProtocol) and connection in connections:
            connection.cut_if_late(monotonic(), head_s, body_s)
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
