"""The Python load generator against a small real HTTP server."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from load.drivers import http_load

Answer = Callable[[dict], Awaitable[dict]]
STALL_S = 0.3


async def read_request(reader: asyncio.StreamReader) -> dict:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return dict(json.loads(await reader.readexactly(length)))


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Answer], Awaitable[str]]]:
    """Starts a keep-alive server around an answering function and returns its URL."""
    servers: list[asyncio.Server] = []

    async def start(answer: Answer) -> str:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    body = json.dumps(await answer(await read_request(reader))).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            except asyncio.IncompleteReadError:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/echo"

    yield start
    for server in servers:
        server.close()


async def echo(request: dict) -> dict:
    return request


async def test_check_accepts_a_correct_server(serve: Callable[[Answer], Awaitable[str]]) -> None:
    assert await http_load.check(await serve(echo), "") == {"requests": 200, "wrong": 0}


async def test_check_counts_answers_that_went_to_the_wrong_caller(serve: Callable[[Answer], Awaitable[str]]) -> None:
    previous: list[dict] = []

    async def mixed(request: dict) -> dict:
        previous.append(request)
        return previous[-2] if len(previous) in (50, 100) else request

    assert (await http_load.check(await serve(mixed), ""))["wrong"] == 2


async def test_a_closed_loop_counts_what_was_answered(serve: Callable[[Answer], Awaitable[str]]) -> None:
    figures = await http_load.closed(await serve(echo), b"{}", 4, 0.2)
    assert figures["errors"] == 0 and figures["requests"] > 4


async def test_a_stall_makes_every_arrival_of_an_open_loop_slow(serve: Callable[[Answer], Awaitable[str]]) -> None:
    released = asyncio.Event()

    async def stalled(request: dict) -> dict:
        await released.wait()
        return request

    url = await serve(stalled)
    asyncio.get_running_loop().call_later(STALL_S, released.set)
    figures = await http_load.open_loop(url, b"{}", 200.0, STALL_S / 2)
    assert figures["requests"] == 30
    assert figures["p50_ms"] > STALL_S / 4 * 1e3


async def test_a_refused_connection_is_an_error_and_not_an_exception() -> None:
    figures = await http_load.open_loop("http://127.0.0.1:1/echo", b"{}", 100.0, 0.05)
    assert (figures["errors"], figures["rps"]) == (5, 0.0)
