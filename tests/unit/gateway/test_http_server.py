"""Ports, draining and stopping."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from streamflow.broker.errors import RuntimeFailToStart
from streamflow.broker.settings import GatewaySettings
from streamflow.gateway.http_app import create_app
from streamflow.gateway.http_server import HttpServer, serve_http
from tests.waiting import eventually

from .conftest import LOCAL
from .echoing import EchoDispatcher


@pytest.mark.feature("GW-02")
async def test_several_ports_serve_the_same(dispatcher: EchoDispatcher, gateway_settings: GatewaySettings) -> None:
    server = await serve_http(create_app(dispatcher, gateway_settings), gateway_settings, [(LOCAL, 0), (LOCAL, 0)])
    assert len(set(server.ports)) == 2
    async with aiohttp.ClientSession() as http:
        for port in server.ports:
            async with http.get(f"http://{LOCAL}:{port}/") as response:
                assert await response.json() == {}
    await server.stop(1)


async def test_a_port_that_is_taken_is_an_error_that_names_it(
    http_server: HttpServer, dispatcher: EchoDispatcher, gateway_settings: GatewaySettings
) -> None:
    port = http_server.ports[0]
    with pytest.raises(RuntimeFailToStart, match=f"{LOCAL}:{port}"):
        await serve_http(create_app(dispatcher, gateway_settings), gateway_settings, [(LOCAL, 0), (LOCAL, port)])


async def test_stopping_answers_what_is_in_flight(dispatcher: EchoDispatcher, gateway_settings: GatewaySettings) -> None:
    server = await serve_http(create_app(dispatcher, gateway_settings), gateway_settings, [(LOCAL, 0)])
    url = f"http://{LOCAL}:{server.ports[0]}"
    async with aiohttp.ClientSession() as http:
        request = asyncio.create_task(http.post(f"{url}/held", json={"data": [{"id": "1"}]}))
        await eventually(lambda: dispatcher.held)
        stopping = asyncio.create_task(server.stop(10))
        await asyncio.sleep(0.05)
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(url)
        dispatcher.release()
        async with await request as response:
            assert (await response.json())["data"] == [{"id": "1"}]
        await asyncio.wait_for(stopping, 5)


async def test_what_outlasts_the_grace_is_refused_with_503(dispatcher: EchoDispatcher, gateway_settings: GatewaySettings) -> None:
    server = await serve_http(create_app(dispatcher, gateway_settings), gateway_settings, [(LOCAL, 0)])
    async with aiohttp.ClientSession() as http:
        request = asyncio.create_task(http.post(f"http://{LOCAL}:{server.ports[0]}/held", json={}))
        await eventually(lambda: dispatcher.held)
        await asyncio.wait_for(server.stop(0.2), 5)
        async with await request as response:
            assert response.status == 503
            assert "shutting down" in (await response.json())["detail"]
        assert dispatcher.cancelled == 1


async def test_a_stream_that_never_ends_does_not_keep_the_server(dispatcher: EchoDispatcher, gateway_settings: GatewaySettings) -> None:
    dispatcher.stream_holds.clear()
    server = await serve_http(create_app(dispatcher, gateway_settings), gateway_settings, [(LOCAL, 0)])
    async with aiohttp.ClientSession() as http, http.get(f"http://{LOCAL}:{server.ports[0]}/hello", json={}) as response:
        assert await response.content.readline() == b"event: update\r\n"
        await asyncio.wait_for(server.stop(0.1), 5)
        with pytest.raises(aiohttp.ClientError):
            await response.content.read()
    await eventually(lambda: dispatcher.streams_closed == 1)
