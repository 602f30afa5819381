"""What is left in the gateway of connections that have gone."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections import Counter
from collections.abc import Callable, Iterator

import aiohttp
import pytest
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.server import ServerProtocol

from streamflow.gateway.connections import Corked
from streamflow.gateway.http_server import HttpServer
from tests.waiting import eventually

from .conftest import LOCAL

pytestmark = pytest.mark.feature("GW-16")
NUMBER = 20
KINDS = (HttpToolsProtocol, WebSocketsSansIOProtocol, ServerProtocol)

Count = Callable[[], dict[str, int]]


@pytest.fixture
def left() -> Iterator[Count]:
    """How many objects of `KINDS` there are that were not there before, and that no collection of garbage has removed."""
    gc.collect()
    gc.disable()
    before = [one for one in gc.get_objects() if isinstance(one, KINDS)]

    def count() -> dict[str, int]:
        known = set(map(id, before))
        return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, KINDS) and id(one) not in known)

    yield count
    gc.enable()


async def test_an_open_socket_has_nothing_of_its_http_connection_and_a_closed_one_nothing_at_all(
    http: aiohttp.ClientSession, left: Count
) -> None:
    sockets = [await http.ws_connect("/") for _ in range(NUMBER)]
    for one in sockets:
        await one.send_json({"execEndpoint": "/echo", "data": [{"id": "1"}]})
        await one.receive_json(timeout=10)
    assert left() == {"SocketConnection": NUMBER, "ServerProtocol": NUMBER}
    for one in sockets:
        await one.close()

    await eventually(lambda: not left(), 20.0, "nothing is left of closed sockets")


async def test_nothing_is_left_of_sockets_whose_clients_vanish(http_server: HttpServer, left: Count) -> None:
    for _ in range(NUMBER):
        reader, writer = await asyncio.open_connection(LOCAL, http_server.ports[0])
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 101")
        writer.transport.abort()

    await eventually(lambda: not left(), 20.0, "nothing is left of sockets that vanished")


def test_what_comes_for_a_client_that_has_gone_is_dropped_in_silence() -> None:
    """uvloop's transports raise then, and nobody is there to catch it at the end of a loop turn."""
    errors: list[dict[str, object]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        gone = asyncio.Event()

        class Client(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                gone.set()

        ours, theirs = socket.socketpair()
        with theirs:
            transport, _ = await loop.create_connection(Client, sock=ours)
            corked = Corked(transport, loop)
            transport.abort()
            await gone.wait()
            corked.write(b"too late")
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert not errors
