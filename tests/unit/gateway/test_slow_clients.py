"""Connections that dribble are cut, and only they."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from streamflow.broker.settings import GatewaySettings
from streamflow.gateway import slow_clients
from streamflow.gateway.http_app import create_app
from streamflow.gateway.http_server import HttpServer, serve_http

from .conftest import LOCAL
from .echoing import EchoDispatcher

BODY = json.dumps({"data": [{"text": "a" * 200}]}).encode()
HEAD = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY)


@pytest.fixture
async def server(dispatcher: EchoDispatcher, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpServer]:
    monkeypatch.setattr(slow_clients, "SWEEP_S", 0.05)
    settings = GatewaySettings(header_timeout_s=0.4, body_timeout_s=0.4, uvicorn_kwargs={"timeout_keep_alive": 1})
    server = await serve_http(create_app(dispatcher, settings), settings, [(LOCAL, 0)])
    yield server
    await server.stop(1.0)


async def dribble(server: HttpServer, pieces: list[bytes], pause_s: float) -> tuple[bytes, float]:
    """Send piece by piece until the server has closed the connection: what it said, and the seconds that took."""
    reader, writer = await asyncio.open_connection(LOCAL, server.ports[0])
    started = time.monotonic()
    said = asyncio.create_task(reader.read())
    for piece in pieces:
        writer.write(piece)
        await asyncio.wait({said}, timeout=pause_s)
        if said.done():
            break
    answer = await asyncio.wait_for(said, 5)
    writer.close()
    return answer, time.monotonic() - started


async def test_a_head_that_dribbles_is_cut(server: HttpServer, dispatcher: EchoDispatcher) -> None:
    answer, took_s = await dribble(server, [HEAD[at : at + 1] for at in range(len(HEAD))], 0.02)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"connection: close" in answer
    assert 0.3 < took_s < 3 and not dispatcher.calls


async def test_a_body_that_dribbles_is_cut(server: HttpServer, dispatcher: EchoDispatcher) -> None:
    answer, took_s = await dribble(server, [HEAD, *(BODY[at : at + 1] for at in range(len(BODY)))], 0.02)
    assert answer.startswith(b"HTTP/1.1 408 ") and answer.count(b"HTTP/1.1") == 1
    assert 0.3 < took_s < 3 and not dispatcher.calls


async def test_a_connection_that_says_nothing_is_closed_without_a_word(server: HttpServer) -> None:
    answer, took_s = await dribble(server, [b""], 4)
    assert answer == b"" and 0.9 < took_s < 4


async def test_a_slow_but_steady_upload_is_not_cut(server: HttpServer, dispatcher: EchoDispatcher) -> None:
    body = json.dumps({"data": [{"text": "a" * 20_000}]}).encode()
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(
        body
    )
    pieces = [body[at : at + 2000] for at in range(0, len(body), 2000)]
    answer, took_s = await dribble(server, [head, *pieces], 0.1)
    assert answer.startswith(b"HTTP/1.1 200 ") and took_s > 0.6 and len(dispatcher.calls) == 1


async def test_a_request_that_waits_for_its_answer_is_not_cut(server: HttpServer, dispatcher: EchoDispatcher) -> None:
    request = (HEAD + BODY).replace(b"/echo", b"/held").replace(b"host: x", b"host: x\r\nconnection: close")
    asking = asyncio.create_task(dribble(server, [request], 0.01))
    await asyncio.wait({asking}, timeout=1.0)
    assert not asking.done()
    dispatcher.release()
    assert (await asking)[0].startswith(b"HTTP/1.1 200 ")
