"""Client certificates on every protocol: without a good one nothing gets to the broker."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import yaml

from streamflow.broker.settings import BrokerSettings

from .certificates import Authority, Issued
from .secured import PROTOCOLS, Secured, body, secured


def context(authority: Authority, client: Issued | None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(authority.path))
    if client is not None:
        made.load_cert_chain(client.chain, client.key)
    return made


async def ask(gateway: Secured, protocol: str, authority: Authority, client: Issued | None) -> int | str:
    """The status, or "refused" when TLS lets the client not even ask."""
    host, port = gateway.addresses[protocol]
    try:
        if protocol == "grpc":
            return await _grpc(f"{host}:{port}", authority, client)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context(authority, client))) as session:
            if protocol == "http":
                async with session.post(f"https://{host}:{port}/run", json=body("a", {})) as response:
                    return response.status
            async with session.ws_connect(f"wss://{host}:{port}/run") as socket:
                await socket.send_json(body("a", {}))
                said: dict[str, Any] = await socket.receive_json(timeout=10)
                return str(said.get("code") or 200)
    except aiohttp.WSServerHandshakeError as error:
        return error.status
    except (aiohttp.ClientConnectionError, ssl.SSLError):
        return "refused"


async def _grpc(address: str, authority: Authority, client: Issued | None) -> str:
    key, chain = (client.key.read_bytes(), client.chain.read_bytes()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.path.read_bytes(), key, chain)
    async with grpc.aio.secure_channel(address, credentials) as channel:
        try:
            await channel.unary_unary("/jina.JinaInfoRPC/_status")(b"", timeout=5)
        except grpc.aio.AioRpcError as error:
            return "refused" if error.code() is grpc.StatusCode.UNAVAILABLE else error.code().name
    return "OK"


@pytest.mark.parametrize("lists", [True, False])
async def test_only_clients_with_a_certificate_of_the_authority_are_let_in(
    settings: BrokerSettings, flow_name: str, tmp_path: Path, lists: bool
) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    server = ours.issue("localhost", "localhost")
    options: dict[str, Any] = {"ssl_certfile": str(server.chain), "ssl_keyfile": str(server.key), "ssl_ca": str(ours.path)}
    if lists:
        listed = {"certificates": [{"subject": "batch.example.org", "name": "batch", "limits": {"in_flight": 5}}]}
        (tmp_path / "auth.yml").write_text(yaml.safe_dump(listed))
        options["auth_file"] = str(tmp_path / "auth.yml")
    good, unlisted = ours.issue("batch", "batch.example.org"), ours.issue("other")
    bad = (None, theirs.issue("stranger", "batch.example.org"), ours.issue("late", "batch.example.org", expired=True))
    async with secured(settings, flow_name, probe_tls=context(ours, good), **options) as gateway:
        before = await gateway.sequence()
        for protocol in PROTOCOLS:
            for client in bad:
                assert await ask(gateway, protocol, ours, client) == "refused", (protocol, client)
        forbidden = [await ask(gateway, protocol, ours, unlisted) for protocol in PROTOCOLS] if lists else []
        assert forbidden in ([], [403, 403, "PERMISSION_DENIED"])
        assert await gateway.sequence() == before
        for protocol in PROTOCOLS:
            assert await ask(gateway, protocol, ours, good) in (200, "200", "OK")
        assert await gateway.sequence() == before + 2
