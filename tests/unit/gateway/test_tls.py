"""TLS on the HTTP and gRPC ports."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import aiohttp
import grpc
import pytest

from streamflow.broker.settings import GatewaySettings
from streamflow.gateway.grpc_server import GrpcServer
from streamflow.gateway.http_app import create_app
from streamflow.gateway.http_server import serve_http

from .conftest import LOCAL
from .echoing import EchoDispatcher
from .grpc_calls import request, single

pytestmark = pytest.mark.feature("GW-18")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "chain.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", str(chain), "-keyout", str(key)]
    subprocess.run([*made, *named], check=True, capture_output=True, timeout=60)
    return chain, key


async def test_http_and_websocket(dispatcher: EchoDispatcher, gateway_settings: GatewaySettings, certificate: tuple[Path, Path]) -> None:
    app = create_app(dispatcher, gateway_settings)
    server = await serve_http(app, gateway_settings, [(LOCAL, 0)], certificate=certificate)
    trusted = ssl.create_default_context(cafile=str(certificate[0]))
    async with aiohttp.ClientSession(f"https://{LOCAL}:{server.ports[0]}", connector=aiohttp.TCPConnector(ssl=trusted)) as http:
        async with http.post("/echo", json={"data": [{"id": "1"}]}) as response:
            assert (await response.json())["data"] == [{"id": "1"}]
        async with http.ws_connect("/echo") as socket:
            await socket.send_json({"data": [{"id": "2"}]})
            assert (await socket.receive_json(timeout=10))["data"] == [{"id": "2"}]
    await server.stop(1)


async def test_grpc(dispatcher: EchoDispatcher, gateway_settings: GatewaySettings, certificate: tuple[Path, Path]) -> None:
    server = GrpcServer(dispatcher, gateway_settings, certificate=certificate)
    (port,) = await server.start([(LOCAL, 0)])
    trusted = grpc.ssl_channel_credentials(certificate[0].read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{port}", trusted) as channel:
        assert (await single(channel)(request("r1"), timeout=10)).header.request_id == "r1"
    await server.stop(1)
