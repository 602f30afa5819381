"""A gateway's protocol servers on free ports, in front of an echo."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import grpc
import pytest

from streamflow.broker.settings import GatewaySettings
from streamflow.gateway.grpc_server import GrpcServer
from streamflow.gateway.http_app import create_app
from streamflow.gateway.http_server import HttpServer, serve_http

from .echoing import EchoDispatcher

LOCAL = "127.0.0.1"


@pytest.fixture
async def dispatcher() -> EchoDispatcher:
    return EchoDispatcher()


@pytest.fixture
def gateway_settings() -> GatewaySettings:
    return GatewaySettings(flow="shop", title="Shop", description="A shop.", max_request_bytes=64 * 1024, prefetch=4)


@pytest.fixture
async def http_server(dispatcher: EchoDispatcher, gateway_settings: GatewaySettings) -> AsyncIterator[HttpServer]:
    server = await serve_http(create_app(dispatcher, gateway_settings), gateway_settings, [(LOCAL, 0)])
    yield server
    await server.stop(1.0)


@pytest.fixture
async def http(http_server: HttpServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{LOCAL}:{http_server.ports[0]}", timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


@pytest.fixture
async def grpc_server(dispatcher: EchoDispatcher, gateway_settings: GatewaySettings) -> AsyncIterator[tuple[GrpcServer, int]]:
    server = GrpcServer(dispatcher, gateway_settings)
    (port,) = await server.start([(LOCAL, 0)])
    yield server, port
    await server.stop(0.5)


@pytest.fixture
async def channel(grpc_server: tuple[GrpcServer, int]) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"{LOCAL}:{grpc_server[1]}") as channel:
        yield channel
