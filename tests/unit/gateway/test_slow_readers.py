"""What waits in the gateway for clients that do not read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import aiohttp
import pytest
import uvloop

from streamflow.broker.settings import GatewaySettings
from streamflow.gateway.connections import WRITE_BYTES
from streamflow.gateway.http_app import create_app
from streamflow.gateway.http_io import Receive, Scope, Send
from streamflow.gateway.http_server import serve_http
from tests.waiting import eventually

from .conftest import LOCAL
from .echoing import EchoDispatcher

pytestmark = pytest.mark.feature("GW-16")
CHUNK = b"x" * 3000
Loop = Callable[[], asyncio.AbstractEventLoop]


class Endless:
    """An app whose answers never end."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
            self.sent += 1

    async def drain(self) -> None: ...

    def give_up(self) -> None: ...


def _silent_client(port: int) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    client.connect((LOCAL, port))
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return client


async def _waiting_bytes(app: Endless) -> int:
    """That wait in the process once the client's and the kernel's buffers are full."""
    server = await serve_http(app, GatewaySettings(flow="shop"), [(LOCAL, 0)])
    with _silent_client(server.ports[0]):
        before = -1

        async def stands_still() -> bool:
            nonlocal before
            seen, before = before, app.sent
            await asyncio.sleep(0.1)
            return 0 < app.sent == seen

        await eventually(stands_still, what="the app has to wait")
        (connection,) = server._server.server_state.connections
        waiting = connection.transport.get_write_buffer_size()
        await server.stop(0.0)
    return int(waiting)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_answer_waits_for_its_reader_before_it_fills_memory(loop: Loop) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        assert 0 < runner.run(_waiting_bytes(Endless())) <= WRITE_BYTES + 2 * len(CHUNK)


@pytest.mark.parametrize(("compression", "extension"), [("none", False), ("gzip", True)])
async def test_sockets_are_compressed_where_answers_are(dispatcher: EchoDispatcher, compression: str, extension: bool) -> None:
    settings = GatewaySettings.model_validate({"flow": "shop", "compression": compression})
    server = await serve_http(create_app(dispatcher, settings), settings, [(LOCAL, 0)])
    async with aiohttp.ClientSession() as http, http.ws_connect(f"http://{LOCAL}:{server.ports[0]}/", compress=12) as socket:
        assert bool(socket.compress) is extension
        await socket.send_json({"execEndpoint": "/echo", "data": [{"id": "1"}]})
        assert (await socket.receive_json(timeout=10))["data"] == [{"id": "1"}]
    await server.stop(1.0)
