"""Why no connection could be had: looks at the address as a stranger would and says in one sentence what to change.

Entered after a connection failed, never before. Each step is one TCP connection with a short limit; nothing is sent that a server could
take for a request.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from .address import Address, Protocol
from .errors import ServerUnavailable

_STEP_S = 1.0
# HTTP/2 connection preface and an empty SETTINGS frame (RFC 9113, 3.4): a gRPC server answers with its own SETTINGS, an HTTP/1.1 server
# with a status line.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
_FRAME_TYPE_AT, _SETTINGS = 3, 4
_FAILED = (OSError, asyncio.IncompleteReadError)  # ssl.SSLError and TimeoutError are OSErrors


async def explained(error: ServerUnavailable, address: Address) -> ServerUnavailable:
    """`error`, or one that says what is wrong with `address`, when something is. A broker's says it already."""
    if address.protocol is Protocol.NATS:
        return error
    sentence = await diagnose(address)
    if not sentence:
        return error
    better = ServerUnavailable(f"{address}: {sentence}")
    better.request_id, better.attempts = error.request_id, error.attempts
    return better


async def diagnose(address: Address) -> str:
    """What to change about `address`; "" when a server of its kind is there. Takes at most four seconds."""
    try:
        async with _connection(address, None):
            pass
    except socket.gaierror:
        return f"the name {address.host!r} is not known: check the host"
    except ConnectionRefusedError:
        return f"nothing listens on port {address.port}: check the port, and that the gateway runs"
    except OSError:
        return "no connection can be made: check host and port, and what filters the way there"
    is_tls = await _speaks_tls(address)
    if is_tls != address.tls:
        return _wrong_tls(address, is_tls)
    if is_tls and (distrust := await _distrust(address)):
        return f"the server's certificate is not trusted ({distrust}): give tls_ca=, and the host by the name in the certificate"
    return _wrong_protocol(address, await _speaks_grpc(address))


def _wrong_tls(address: Address, is_tls: bool) -> str:
    right = replace(address, tls=is_tls)
    if is_tls:
        return f"the server expects TLS: use {right}, or tls=True"
    return f"the server does not speak TLS: use {right}, or leave tls out"


def _wrong_protocol(address: Address, is_grpc: bool | None) -> str:
    if is_grpc is None:
        return "something listens there that is no gateway: check the port"
    if is_grpc == (address.protocol is Protocol.GRPC):
        return ""
    grpc, http, web_socket = (replace(address, protocol=kind) for kind in (Protocol.GRPC, Protocol.HTTP, Protocol.WEBSOCKET))
    if is_grpc:
        return f"this is a gRPC port: use {grpc}, or protocol='grpc'"
    return f"this is an HTTP port: use {http} or {web_socket}, or protocol='http' or 'websocket'"


async def _speaks_tls(address: Address) -> bool:
    try:
        async with _connection(address, _any_certificate()):
            return True
    except _FAILED:
        return False


async def _distrust(address: Address) -> str:
    """Why the client does not trust the server's certificate, "" when it does."""
    try:
        async with _connection(address, address.files.context()):
            return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except _FAILED:
        return ""


async def _speaks_grpc(address: Address) -> bool | None:
    """Whether HTTP/2 is spoken there, False = HTTP/1.1, None = neither."""
    try:
        async with _connection(address, _any_certificate() if address.tls else None) as (reader, writer):
            writer.write(_PREFACE)
            head = await asyncio.wait_for(reader.readexactly(9), _STEP_S)
    except _FAILED:
        return None
    if head.startswith(b"HTTP/1"):
        return False
    return True if head[_FRAME_TYPE_AT] == _SETTINGS else None


def _any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@asynccontextmanager
async def _connection(address: Address, context: ssl.SSLContext | None) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    opening = asyncio.open_connection(address.host, address.port, ssl=context)
    reader, writer = await asyncio.wait_for(opening, _STEP_S)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
