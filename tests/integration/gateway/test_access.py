"""Who may call a gateway, over each protocol, and that a refused call leaves no trace on the broker."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import jwt
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from streamflow.broker.settings import BrokerSettings
from tests.waiting import eventually

from .secured import LOCAL, PROTOCOLS, Secured, Upper, secured

KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "HS256": "a shared secret of thirty-two bytes and more",
}
STRANGER = ed25519.Ed25519PrivateKey.generate()
REFUSED = {"http": 401, "websocket": 401, "grpc": "UNAUTHENTICATED"}
FORBIDDEN = {"http": 403, "websocket": 403, "grpc": "PERMISSION_DENIED"}


def public_pem(key: Any) -> bytes:
    if isinstance(key, str):
        return key.encode()
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def made(algorithm: str = "EdDSA", key: Any = None, **claims: Any) -> str:
    now = int(time.time())
    all_claims = {"sub": "jo", "aud": "shop", "iss": "https://id", "tenant": "shop", "iat": now, "exp": now + 60, **claims}
    return jwt.encode({name: value for name, value in all_claims.items() if value is not None}, key or KEYS[algorithm], algorithm=algorithm)


def auth_file(folder: Path, **more: Any) -> Path:
    for algorithm, key in KEYS.items():
        (folder / f"{algorithm}.key").write_bytes(public_pem(key))
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(KEYS["ES256"].public_key()))
    (folder / "jwks.json").write_text(json.dumps({"keys": [{**jwk, "kid": "k1", "use": "sig"}]}))
    issuers: list[dict[str, Any]] = [
        {"key_file": f"{name}.key", "audience": "shop", "issuer": "https://id"} for name in KEYS if name != "ES256"
    ]
    issuers.append({"jwks_file": "jwks.json", "audience": ["shop", "other"], "issuer": "https://id"})
    tokens = [
        {"name": name, "tenant": tenant, "sha256": hashlib.sha256(name.encode()).hexdigest(), "limits": limits}
        for name, tenant, limits in (
            ("alice", "shop", {}),
            ("rival", "news", {}),
            ("slow", "shop", {"requests_per_s": 0.2, "burst": 2}),
            ("narrow", "shop", {"in_flight": 1}),
            ("small", "shop", {"max_request_bytes": 2000}),
        )
    ]
    path = folder / "auth.yml"
    path.write_text(yaml.safe_dump({"tenants": ["shop"], "tokens": tokens, "jwt": issuers, **more}))
    return path


@pytest.fixture
async def gateway(settings: BrokerSettings, flow_name: str, tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured(settings, flow_name, auth_file=str(auth_file(tmp_path))) as found:
        yield found


def tampered(token: str) -> str:
    head, claims, signature = token.split(".")
    return f"{head}.{claims}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


def bad_tokens() -> dict[str, str]:
    """What is wrong -> a token that must not let anybody in."""
    now = int(time.time())
    return {
        "none at all": "",
        "unknown": "mallory",
        "expired": made(exp=now - 1),
        "not yet valid": made(nbf=now + 60),
        "without an end": made(exp=None),
        "for nobody": made(aud=None),
        "wrong audience": made(aud="news"),
        "wrong issuer": made(iss="https://evil"),
        "nobody's": made(sub=None),
        "wrong signature": tampered(made()),
        "signed by a stranger": made(key=STRANGER),
        "alg none": jwt.encode({"sub": "jo", "aud": "shop", "iss": "https://id", "exp": now + 60}, None, algorithm="none"),
        "the public key as a secret": _confused(),
        "unknown key id": jwt.encode(
            {"sub": "jo", "aud": "shop", "iss": "https://id", "tenant": "shop", "exp": now + 60},
            KEYS["ES256"],
            "ES256",
            headers={"kid": "k2"},
        ),
        "a claim of another kind": made(sub="jo", tenant=["shop"]),
        "no token": "..",
        "garbage": "a.b.c",
    }


def _confused() -> str:
    """HS256 with the text of the RSA public key as its secret: what a check that trusts the token's `alg` falls for."""
    import base64
    import hmac

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = {"sub": "jo", "aud": "shop", "iss": "https://id", "tenant": "shop", "exp": int(time.time()) + 60}
    signed = f"{part(json.dumps({'alg': 'HS256', 'typ': 'JWT'}).encode())}.{part(json.dumps(claims).encode())}"
    return f"{signed}.{part(hmac.digest(public_pem(KEYS['RS256']), signed.encode(), 'sha256'))}"


async def test_calls_without_a_good_token_are_refused_and_leave_no_trace(gateway: Secured) -> None:
    before = await gateway.sequence()
    for what, token in bad_tokens().items():
        for protocol in PROTOCOLS:
            answer = await gateway.ask(protocol, token)
            assert answer.status == REFUSED[protocol], (what, protocol, answer)
            assert not token or token not in answer.text
    for token in ("rival", made(tenant="news"), made(tenant=None)):
        for protocol in PROTOCOLS:
            assert (await gateway.ask(protocol, token)).status == FORBIDDEN[protocol], (token, protocol)
    assert await gateway.sequence() == before


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_good_tokens_are_served(gateway: Secured, protocol: str) -> None:
    before = await gateway.sequence()
    tokens = ["alice", *(made(algorithm) for algorithm in KEYS)]
    for token in [*tokens, *tokens]:
        answer = await gateway.ask(protocol, token, "hi")
        assert answer.is_good and answer.texts == ["HI"], (token, answer)
    assert await gateway.sequence() == before + 2 * len(tokens)


async def test_a_token_that_was_good_is_not_after_its_end(gateway: Secured) -> None:
    token = made(exp=int(time.time()) + 2)
    assert (await gateway.ask("http", token)).is_good
    async with asyncio.timeout(10):
        while (await gateway.ask("http", token)).is_good:
            await asyncio.sleep(0.1)


async def test_a_socket_outlives_its_token_but_takes_no_more_requests(gateway: Secured) -> None:
    url = "ws://{}:{}/run".format(*gateway.addresses["websocket"])
    headers = {"authorization": f"Bearer {made(exp=int(time.time()) + 2)}"}
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
        answers: list[dict[str, Any]] = []
        async with asyncio.timeout(8):
            while not answers or answers[-1].get("code") is None:
                await socket.send_json({"data": [{"text": "a"}], "execEndpoint": "/run"})
                answers.append(await socket.receive_json())
                await asyncio.sleep(0.1)
        assert len(answers) > 1 and answers[-1]["code"] == "UNAUTHENTICATED"


async def test_what_probes_ask_is_open_and_the_rest_is_not(gateway: Secured) -> None:
    host, port = gateway.addresses["http"]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        opened = {path: (await session.get(path)).status for path in ("/", "/healthz", "/readyz", "/dry_run")}
        closed = {path: (await session.get(path)).status for path in ("/status", "/docs", "/openapi.json", "/nothing")}
        posted = await session.post("/", json={})
        assert set(opened.values()) == {200} and set(closed.values()) == {401} and posted.status == 401
        assert posted.headers["www-authenticate"] == "Bearer"
    address = "{}:{}".format(*gateway.addresses["grpc"])
    async with grpc.aio.insecure_channel(address) as channel:
        assert await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10)
        assert await channel.unary_unary("/jina.JinaGatewayDryRunRPC/dry_run")(b"", timeout=10) is not None
        reflection = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        for method in (channel.unary_unary("/jina.JinaInfoRPC/_status")(b"", timeout=10), reflection(iter([b""]), timeout=10).read()):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await method
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_streams_of_requests_are_checked_when_they_begin(gateway: Secured) -> None:
    address = "{}:{}".format(*gateway.addresses["grpc"])
    async with grpc.aio.insecure_channel(address) as channel:
        for service in ("/jina.JinaRPC/Call", "/streamflow.v1.Streamflow/Call", "/streamflow.v1.Streamflow/Stream"):
            call = channel.stream_stream(service) if service.endswith("Call") else channel.unary_stream(service)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(iter([b""]) if service.endswith("Call") else b"", timeout=10).read()
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_browser_sends_its_token_as_a_sub_protocol(gateway: Secured) -> None:
    url = "ws://{}:{}/run".format(*gateway.addresses["websocket"])
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=["json", "bearer.alice"]) as socket:
        await socket.send_json({"data": [{"text": "a"}], "execEndpoint": "/run"})
        assert (await socket.receive_json(timeout=10))["data"][0]["text"] == "A" and socket.protocol == "json"


async def test_who_is_above_its_rate_waits_and_others_do_not(gateway: Secured) -> None:
    before = await gateway.sequence()
    seen = [await gateway.ask("http", "slow") for _ in range(4)]
    assert [answer.status for answer in seen] == [200, 200, 429, 429]
    assert 1 <= int(seen[2].retry_after) <= 5 and "'slow' may send 0.2 requests per second" in seen[2].text
    told = await gateway.ask("grpc", "slow")
    assert told.status == "RESOURCE_EXHAUSTED" and 1 <= int(told.retry_after) <= 5
    assert (await gateway.ask("websocket", "slow")).status == "RESOURCE_EXHAUSTED"
    others = [await gateway.ask(protocol, token) for protocol in PROTOCOLS for token in ("alice", made(sub="else"))]
    assert all(answer.is_good for answer in others)
    assert await gateway.sequence() == before + 2 + len(others)


async def test_requests_in_flight_are_counted_over_all_protocols(gateway: Secured) -> None:
    held = asyncio.create_task(gateway.ask("http", "narrow", hold=True))
    async with asyncio.timeout(10):
        while (await gateway.ask("grpc", "narrow")).status != "RESOURCE_EXHAUSTED":
            await asyncio.sleep(0.01)
    refused = await gateway.ask("http", "narrow")
    assert refused.status == 429 and refused.retry_after == "1"
    assert (await gateway.ask("http", "alice")).is_good
    Upper.holds.set()
    assert (await held).is_good
    assert all([(await gateway.ask(protocol, "narrow")).is_good for protocol in PROTOCOLS])


async def test_bodies_above_a_callers_limit_are_refused(gateway: Secured) -> None:
    before = await gateway.sequence()
    statuses = [(await gateway.ask(protocol, "small", "x" * 3000)).status for protocol in PROTOCOLS]
    assert statuses == [413, "TOO_LARGE", "RESOURCE_EXHAUSTED"]
    assert await gateway.sequence() == before
    assert (await gateway.ask("http", "small", "x")).is_good and (await gateway.ask("http", "alice", "x" * 3000)).is_good


async def test_a_flow_that_says_nothing_serves_this_machine_only(
    settings: BrokerSettings, flow_name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with secured(settings, flow_name, host="0.0.0.0") as gateway:
        assert "beyond this machine nobody is let in: set auth_file" in caplog.text
        before = await gateway.sequence()
        assert all([(await gateway.ask(protocol)).is_good for protocol in PROTOCOLS])
        assert await gateway.sequence() == before + 3
        # Every caller looks like one from elsewhere now.
        for module in ("auth_http", "auth_grpc"):
            monkeypatch.setattr(f"streamflow.gateway.{module}.is_local", lambda host: False)
        answers = [await gateway.ask(protocol, "alice") for protocol in PROTOCOLS]
        assert [answer.status for answer in answers] == list(REFUSED.values())
        assert "allow_anonymous" in answers[0].text and await gateway.sequence() == before + 3


async def test_anonymous_callers_are_let_in_where_that_is_said(settings: BrokerSettings, flow_name: str, tmp_path: Path) -> None:
    path = auth_file(tmp_path, limits={"requests_per_s": 0.1, "burst": 3})
    async with secured(settings, flow_name, auth_file=str(path), allow_anonymous=True) as gateway:
        assert all([(await gateway.ask(protocol)).is_good for protocol in PROTOCOLS])
        assert (await gateway.ask("http")).status == 429
        assert (await gateway.ask("http", "alice")).is_good and (await gateway.ask("http", "mallory")).status == 401


@pytest.mark.parametrize("options", [{}, {"cors": True}, {"allowed_origins": ["http://page.example"]}])
async def test_pages_of_other_origins_open_no_sockets_unless_allowed(
    settings: BrokerSettings, flow_name: str, options: dict[str, Any]
) -> None:
    async with secured(settings, flow_name, **options) as gateway:
        host, port = gateway.addresses["websocket"]
        wanted = {f"http://{LOCAL}:{port}": True, "http://page.example": bool(options), "http://evil.example": "cors" in options}
        async with aiohttp.ClientSession() as session:
            for origin, opens in wanted.items():
                try:
                    async with session.ws_connect(f"ws://{host}:{port}/run", origin=origin) as socket:
                        await socket.close()
                    assert opens, origin
                except aiohttp.WSServerHandshakeError as error:
                    assert error.status == 403 and not opens, origin


async def test_preflights_and_refusals_can_be_read_by_pages(settings: BrokerSettings, flow_name: str, tmp_path: Path) -> None:
    async with secured(settings, flow_name, auth_file=str(auth_file(tmp_path)), cors=True) as gateway:
        host, port = gateway.addresses["http"]
        origin = {"Origin": "http://page.example"}
        async with aiohttp.ClientSession(f"http://{host}:{port}", headers=origin) as session:
            asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
            preflight = await session.options("/run", headers=asked)
            assert preflight.status == 200 and "authorization" in preflight.headers["access-control-allow-headers"].lower()
            refused = await session.post("/run", json={})
            assert refused.status == 401 and refused.headers["access-control-allow-origin"] == "*"


def without(path: Path, name: str) -> None:
    rules = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**rules, "tokens": [entry for entry in rules["tokens"] if entry["name"] != name]}))


async def test_a_revoked_token_is_refused_without_a_restart(settings: BrokerSettings, flow_name: str, tmp_path: Path) -> None:
    path = auth_file(tmp_path)
    async with secured(settings, flow_name, auth_file=str(path)) as gateway:
        assert all([(await gateway.ask(protocol, "alice")).is_good for protocol in PROTOCOLS])
        url = "ws://{}:{}/run".format(*gateway.addresses["websocket"])
        headers = {"authorization": "Bearer alice"}
        async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
            request = {"data": [{"text": "a"}], "execEndpoint": "/run"}
            await socket.send_json(request)
            assert (await socket.receive_json(timeout=10))["data"][0]["text"] == "A"
            without(path, "alice")
            async with asyncio.timeout(2):
                while (await gateway.ask("http", "alice")).is_good:
                    await asyncio.sleep(0.05)
            assert [(await gateway.ask(protocol, "alice")).status for protocol in PROTOCOLS] == list(REFUSED.values())
            await socket.send_json(request)
            assert (await socket.receive_json(timeout=10))["code"] == "UNAUTHENTICATED"
        assert (await gateway.ask("http", made())).is_good and (await gateway.ask("http", "small")).is_good


async def test_new_keys_and_limits_hold_without_a_restart(settings: BrokerSettings, flow_name: str, tmp_path: Path) -> None:
    """Also of a key file whose auth_file stays what it was."""
    path = auth_file(tmp_path)
    async with secured(settings, flow_name, auth_file=str(path)) as gateway:
        assert (await gateway.ask("http", made())).is_good and not (await gateway.ask("http", made(key=STRANGER))).is_good
        (tmp_path / "EdDSA.key").write_bytes(public_pem(STRANGER))
        async with asyncio.timeout(5):
            while not (await gateway.ask("http", made(key=STRANGER))).is_good:
                await asyncio.sleep(0.05)
        assert (await gateway.ask("grpc", made())).status == "UNAUTHENTICATED"


@pytest.mark.parametrize("change", ["wrong", "gone", "key gone"])
async def test_a_file_that_cannot_be_used_changes_nothing(
    settings: BrokerSettings, flow_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    path = auth_file(tmp_path)
    async with secured(settings, flow_name, auth_file=str(path)) as gateway:
        before = path.read_text()
        if change == "wrong":
            path.write_text("tokens:\n  - name: jo\n    sha256: abc\ntenants: 3\n")
        else:
            (path if change == "gone" else tmp_path / "HS256.key").unlink()
        await eventually(lambda: "the rules stay what they were" in caplog.text, what="the line in the log")
        assert all([(await gateway.ask(protocol, "alice")).is_good for protocol in PROTOCOLS])
        assert (await gateway.ask("http", made("HS256"))).is_good and not (await gateway.ask("http", "mallory")).is_good
        said = [record.getMessage() for record in caplog.records if record.name == "streamflow.gateway.rules"]
        assert len(said) == 1 and "\n" not in said[0]  # once, whatever the number of ports
        if change == "wrong":
            assert "auth.yml:4: tenants: Input should be a valid list (and 1 more)" in said[0]
            path.write_text(before)
            without(path, "alice")
            async with asyncio.timeout(5):
                while (await gateway.ask("http", "alice")).is_good:
                    await asyncio.sleep(0.05)
