"""Options of the built-in gateway: exposed and hidden routes, compression, the admin port, arguments for uvicorn and gRPC."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import grpc
import pytest

from streamflow.broker.errors import FlowError
from streamflow.broker.lifecycle import Stop
from streamflow.broker.settings import GatewaySettings
from streamflow.gateway.admin import create_admin
from streamflow.gateway.compression import SMALLEST_BYTES, accepts
from streamflow.gateway.exposed import Routes
from streamflow.gateway.grpc_server import GrpcServer
from streamflow.gateway.http_app import create_app
from streamflow.gateway.http_server import serve_http

from .conftest import LOCAL
from .echoing import EchoDispatcher

pytestmark = pytest.mark.feature("GW-04", "GW-05", "GW-12", "GW-20", "GW-26", "GW-36")
LARGE = {"data": [{"id": "1", "text": "x" * SMALLEST_BYTES}]}


@asynccontextmanager
async def serving(dispatcher: EchoDispatcher, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    settings = GatewaySettings(flow="shop", **options)
    server = await serve_http(create_app(dispatcher, settings), settings, [(LOCAL, 0)])
    session = aiohttp.ClientSession(f"http://{LOCAL}:{server.ports[0]}", timeout=aiohttp.ClientTimeout(20), auto_decompress=False)
    async with session as http:
        yield http
    await server.stop(1.0)


async def status_of(http: aiohttp.ClientSession, method: str, path: str) -> int:
    async with http.request(method, path, json={"data": [{"id": "1"}]}) as response:
        return response.status


async def test_an_endpoint_is_exposed_at_a_path_by_methods(dispatcher: EchoDispatcher) -> None:
    async with serving(dispatcher, expose_endpoints={"/echo": {"path": "/mirror", "methods": ["put", "GET"]}}) as http:
        assert await status_of(http, "PUT", "/mirror") == 200
        assert await status_of(http, "POST", "/echo") == 200
        async with http.get("/mirror?text=hi&n=3") as response:
            assert (await response.json())["data"] == [{"text": "hi", "n": 3}]
        async with http.delete("/mirror") as response:
            assert (response.status, response.headers["allow"]) == (405, "GET, PUT")
        assert {call.endpoint for call in dispatcher.calls} == {"/echo"}


async def test_a_streaming_endpoint_streams_at_its_exposed_path(dispatcher: EchoDispatcher) -> None:
    exposed = {"/hello": {"path": "/tokens", "methods": ["GET"]}}
    async with serving(dispatcher, expose_endpoints=exposed) as http, http.get("/tokens?text=hi") as response:
        assert (await response.read()).count(b"event: update") == 3


async def test_hidden_routes_are_not_found_and_not_listed(dispatcher: EchoDispatcher) -> None:
    async with serving(dispatcher, no_debug_endpoints=True, no_crud_endpoints=True) as http:
        assert [await status_of(http, "POST", path) for path in ("/post", "/search", "/search/", "/echo")] == [404, 404, 404, 200]
        assert await status_of(http, "GET", "/status") == 404
        async with http.get("/openapi.json") as response:
            assert not {"/post", "/status"} & (await response.json())["paths"].keys()


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"/a": {"path": "/x"}, "/b": {"path": "/x"}}, "POST /x is given to two endpoints"),
        ({"/a": {"methods": ["FETCH"]}}, "'FETCH' is none of GET"),
        ({"/a": {"methods": "PUT"}}, "expected a list"),
    ],
)
def test_routes_that_cannot_be_are_refused(entries: dict[str, Any], said: str) -> None:
    with pytest.raises(FlowError, match=said):
        Routes(GatewaySettings(expose_endpoints=entries))


@pytest.mark.parametrize(("coding", "opened"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
async def test_large_answers_are_compressed_for_who_accepts_it(dispatcher: EchoDispatcher, coding: str, opened: Any) -> None:
    async with serving(dispatcher, compression=coding, cors=True) as http:
        async with http.post("/echo", json=LARGE, headers={"accept-encoding": f"br, {coding}", "origin": "http://page"}) as response:
            body = await response.read()
            assert response.headers["content-encoding"] == coding and response.headers["access-control-allow-origin"] == "*"
            assert len(body) < SMALLEST_BYTES and b'"x' in opened(body)
        async with http.post("/echo", json=LARGE, headers={"accept-encoding": f"{coding};q=0"}) as response:
            assert "content-encoding" not in response.headers and b'"x' in await response.read()
        async with http.post("/echo", json={"data": []}, headers={"accept-encoding": coding}) as response:
            assert "content-encoding" not in response.headers
        async with http.get("/hello", json={"text": "x" * SMALLEST_BYTES}, headers={"accept-encoding": coding}) as response:
            assert "content-encoding" not in response.headers and b"event: end" in await response.read()


@pytest.mark.parametrize(
    ("header", "accepted"),
    [(b"gzip", True), (b"GZIP;q=0.5", True), (b"*", True), (b"gzip;q=0, *", False), (b"", False), (b"br", False), (b"gzip; q=0.0", False)],
)
def test_accept_encoding_is_read_as_the_standard_says(header: bytes, accepted: bool) -> None:
    assert accepts(header, "gzip") is accepted


async def test_the_admin_port_has_operations_and_no_data(dispatcher: EchoDispatcher) -> None:
    settings, stop = GatewaySettings(flow="shop", admin_port=0), Stop()
    server = await serve_http(create_admin(dispatcher, settings, stop, info=lambda: {"broker": "b"}), settings, [(LOCAL, 0)])
    async with aiohttp.ClientSession(f"http://{LOCAL}:{server.ports[0]}") as http:
        assert [await status_of(http, "GET", path) for path in ("/", "/healthz", "/readyz", "/dry_run", "/status")] == [200] * 5
        assert await status_of(http, "POST", "/echo") == 404
        stop.set("SIGTERM")
        assert [await status_of(http, "GET", path) for path in ("/healthz", "/readyz")] == [200, 503]
    await server.stop(1.0)


async def test_with_an_admin_port_clients_find_only_what_clients_ask(dispatcher: EchoDispatcher) -> None:
    async with serving(dispatcher, admin_port=0) as http:
        found = {path: await status_of(http, "GET", path) for path in ("/", "/dry_run", "/healthz", "/readyz", "/status", "/docs")}
    assert found == {"/": 200, "/dry_run": 200, "/healthz": 404, "/readyz": 404, "/status": 404, "/docs": 200}


async def test_arguments_reach_uvicorn(dispatcher: EchoDispatcher) -> None:
    kwargs = {"http": "h11", "server_header": True, "root_path": "/behind", "headers": [["x-own", "1"]]}
    async with serving(dispatcher, uvicorn_kwargs=kwargs) as http:
        async with http.post("/echo", json={"data": [{"id": "1"}]}) as response:
            assert (response.status, response.headers["server"], response.headers["x-own"]) == (200, "uvicorn", "1")
        async with http.get("/docs") as response:
            assert "/behind/openapi.json" in await response.text()
        assert await status_of(http, "GET", "/openapi.json") == 200


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"port": 1}, "port is decided by the gateway's own arguments"),
        ({"timeout_keepalive": 1}, "did you mean 'timeout_keep_alive'?"),
        ({"ws": "nonsense"}, "uvicorn_kwargs: "),
    ],
)
async def test_arguments_that_uvicorn_cannot_take_are_named(dispatcher: EchoDispatcher, kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(FlowError, match=said):
        async with serving(dispatcher, uvicorn_kwargs=kwargs):
            pass


async def test_options_reach_the_grpc_server(dispatcher: EchoDispatcher) -> None:
    settings = GatewaySettings(flow="shop", compression="gzip", grpc_server_options={"grpc.max_receive_message_length": 100})
    server = GrpcServer(dispatcher, settings)
    (port,) = await server.start([(LOCAL, 0)])
    async with grpc.aio.insecure_channel(f"{LOCAL}:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")(b"\x00" * 200)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await channel.unary_unary("/jina.JinaInfoRPC/_status")(b"")
    await server.stop(0.1)


def test_options_that_grpc_cannot_take_are_named(dispatcher: EchoDispatcher) -> None:
    with pytest.raises(FlowError, match="grpc_server_options: grpc.x: \\[1\\] is neither a number nor text"):
        GrpcServer(dispatcher, GatewaySettings(grpc_server_options={"grpc.x": [1]}))


async def test_status_over_grpc_can_be_left_out(dispatcher: EchoDispatcher) -> None:
    server = GrpcServer(dispatcher, GatewaySettings(flow="shop", no_debug_endpoints=True))
    (port,) = await server.start([(LOCAL, 0)])
    async with grpc.aio.insecure_channel(f"{LOCAL}:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/jina.JinaInfoRPC/_status")(b"")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0.1)


async def test_graphql_is_served_when_it_is_asked_for(dispatcher: EchoDispatcher) -> None:
    for wanted, status in ((False, 404), (True, 400)):
        async with serving(dispatcher, expose_graphql_endpoint=wanted) as http:
            assert await status_of(http, "POST", "/graphql") == status


def test_graphql_without_its_package_is_refused(dispatcher: EchoDispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphql", None)
    monkeypatch.delitem(sys.modules, "streamflow.gateway.graphql_app", raising=False)
    monkeypatch.delitem(sys.modules, "streamflow.gateway.graphql_limits", raising=False)
    monkeypatch.delitem(sys.modules, "streamflow.gateway.graphql_types", raising=False)
    with pytest.raises(FlowError, match=r"expose_graphql_endpoint needs one more package: pip install \"streamflow\[graphql\]\""):
        create_app(dispatcher, GatewaySettings(expose_graphql_endpoint=True))
