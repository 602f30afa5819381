"""Every way to have the address wrong: one sentence that says what to change, soon."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from streamflow.client import BadArguments, Client, ServerUnavailable, SyncClient
from tests.unit.client.backend import Backend, Item
from tests.unit.client.grpc_servers import GrpcServer
from tests.unit.client.http_servers import HttpServer
from tests.unit.client.servers import Running

pytestmark = pytest.mark.feature("CL-01")

AT_MOST_S = 5.0
PROTOCOLS = ("grpc", "http", "websocket")
SCHEMES = {"grpc": "grpc", "http": "http", "websocket": "ws"}


class _TlsGrpc(GrpcServer):
    def __init__(self, backend: Backend, certificate: tuple[Path, Path]) -> None:
        super().__init__(backend, own_too=True)
        self._certificate = certificate

    async def start(self, port: int) -> int:
        self.server = aio.server()
        self.server.add_generic_rpc_handlers((self.router(),))
        chain, key = (path.read_bytes() for path in self._certificate)
        bound = self.server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(key, chain)]))
        await self.server.start()
        return int(bound)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "chain.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", str(chain), "-keyout", str(key)]
    subprocess.run([*made, *named], check=True, capture_output=True, timeout=60)
    return chain, key


@pytest.fixture(scope="module")
def ports(certificate: tuple[Path, Path]) -> Iterator[dict[tuple[str, bool], int]]:
    """(what is spoken there, whether encrypted) to port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    makers: dict[tuple[str, bool], Callable[[Backend], Any]] = {
        ("grpc", False): lambda backend: GrpcServer(backend, own_too=True),
        ("grpc", True): lambda backend: _TlsGrpc(backend, certificate),
        ("http", False): HttpServer,
        ("http", True): lambda backend: HttpServer(backend, ssl_context=context),
    }
    servers = {kind: Running(make) for kind, make in makers.items()}
    yield {kind: server.port for kind, server in servers.items()}
    for server in servers.values():
        server.stop()
        server.close()


@pytest.fixture
def refuses() -> Iterator[Callable[..., str]]:
    """The sentence of the error that a client with these arguments raises, for post() and stream_doc() alike."""
    opened: list[SyncClient] = []

    def ask(*arguments: Any, **options: Any) -> str:
        client = Client(*arguments, **options)
        opened.append(client)
        started = time.monotonic()
        with pytest.raises(ServerUnavailable) as caught:
            client.post("/echo", [Item(), Item()], request_size=1)
        with pytest.raises(ServerUnavailable) as streamed:
            next(client.stream_doc("/talk", Item(text="a")))
        assert time.monotonic() - started < 2 * AT_MOST_S
        assert client.is_flow_ready() is False
        assert str(caught.value).partition(" (request")[0] == str(streamed.value).partition(" (request")[0]
        assert isinstance(caught.value, ConnectionError)
        return str(caught.value)

    yield ask
    for client in opened:
        client.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("spoken", ["grpc", "http"])
@pytest.mark.parametrize("spoken_tls", [False, True])
def test_every_mismatch_of_protocol_and_tls(
    protocol: str,
    is_tls: bool,
    spoken: str,
    spoken_tls: bool,
    ports: dict[tuple[str, bool], int],
    certificate: tuple[Path, Path],
    refuses: Callable[..., str],
) -> None:
    port = ports[spoken, spoken_tls]
    options: dict[str, Any] = {"tls": True, "tls_ca": str(certificate[0])} if is_tls else {}
    matches = (protocol == "grpc") == (spoken == "grpc")
    if matches and is_tls == spoken_tls:
        with Client("localhost", port, protocol, **options) as client:
            assert client.post("/echo", Item(text="a"), return_type=Item).text == "A"
        return
    said = refuses("localhost", port, protocol, **options)
    scheme = SCHEMES[protocol]
    if not is_tls and spoken_tls:
        assert f"the server expects TLS: use {scheme}s://localhost:{port}, or tls=True" in said
    elif is_tls and not spoken_tls:
        assert f"the server does not speak TLS: use {scheme}://localhost:{port}, or leave tls out" in said
    elif spoken == "grpc":
        assert f"this is a gRPC port: use grpc{'s' * is_tls}://localhost:{port}, or protocol='grpc'" in said
    else:
        assert f"this is an HTTP port: use http{'s' * is_tls}://localhost:{port} or ws{'s' * is_tls}://localhost:{port}" in said


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_certificate_that_is_not_trusted(protocol: str, ports: dict[tuple[str, bool], int], refuses: Callable[..., str]) -> None:
    said = refuses("localhost", ports["grpc" if protocol == "grpc" else "http", True], protocol, tls=True)
    assert "certificate is not trusted (self-signed certificate" in said
    assert "give tls_ca=" in said


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_certificate_for_another_name(
    protocol: str, ports: dict[tuple[str, bool], int], certificate: tuple[Path, Path], refuses: Callable[..., str]
) -> None:
    port = ports["grpc" if protocol == "grpc" else "http", True]
    said = refuses("127.0.0.1", port, protocol, tls_ca=str(certificate[0]))
    assert "certificate is not trusted (IP address mismatch" in said
    assert "the host by the name in the certificate" in said


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_closed_port(protocol: str, refuses: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    assert f"nothing listens on port {port}: check the port, and that the gateway runs" in refuses("127.0.0.1", port, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_unknown_host(protocol: str, refuses: Callable[..., str]) -> None:
    said = refuses("no-such-host.invalid", 80, protocol)
    assert "the name 'no-such-host.invalid' is not known: check the host" in said


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_something_that_is_no_gateway(protocol: str, refuses: Callable[..., str]) -> None:
    """A server that greets in a protocol of its own, as mail, database and NATS servers do."""
    with socket.create_server(("127.0.0.1", 0)) as greeter:
        threading.Thread(target=_greet, args=(greeter,), daemon=True).start()
        assert "something listens there that is no gateway: check the port" in refuses(*greeter.getsockname(), protocol)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_host_that_does_not_answer(protocol: str, refuses: Callable[..., str]) -> None:
    """A port whose backlog is full: nobody refuses, nobody accepts."""
    with socket.socket() as busy, contextlib.ExitStack() as waiting:
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)
        for _ in range(4):
            other = waiting.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(busy.getsockname())
        assert "no connection can be made: check host and port" in refuses(*busy.getsockname(), protocol)


async def test_the_async_client_says_the_same(ports: dict[tuple[str, bool], int]) -> None:
    async with Client("localhost", ports["http", False], "grpc", asyncio=True) as client, asyncio.timeout(AT_MOST_S):
        with pytest.raises(ServerUnavailable, match="this is an HTTP port: use http://localhost:"):
            async for _ in client.post("/echo", Item()):
                pass


def test_tls_files_are_checked_before_anything_is_sent(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    chain = str(certificate[0])
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    with pytest.raises(BadArguments, match="no such file"):
        Client("grpcs://localhost", tls_ca=str(tmp_path / "missing.pem"))
    with pytest.raises(BadArguments, match="tls_cert and tls_key: give both"):
        Client("https://localhost", tls_cert=chain)
    with pytest.raises(BadArguments, match="not encrypted"):
        Client("http://localhost", tls_ca=chain)
    for protocol in PROTOCOLS:
        with pytest.raises(BadArguments, match="not PEM files"), Client("localhost", 1, protocol, tls_ca=str(wrong)) as client:
            client.post("/echo")


def _greet(greeter: socket.socket) -> None:
    while True:
        try:
            connection, _ = greeter.accept()
        except OSError:
            return
        connection.sendall(b"220 mail.example.org ESMTP\r\n")
        connection.close()
