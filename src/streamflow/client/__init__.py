"""The Python client: `Client(host, port, protocol)` of a streamflow or Jina gateway (gRPC, HTTP, WebSocket), or of the broker itself."""

from __future__ import annotations

from typing import Literal, Unpack, overload

from .async_client import AsyncClient
from .errors import BadArguments, RequestTimeout, ServerUnavailable
from .plan import ClientOptions
from .readers import from_csv, from_files, from_lines, from_ndarray, from_ndjson
from .results import DataRequest, Header, Route
from .retry import wait_or_raise_err
from .sync_client import SyncClient

Response = DataRequest

__all__ = [
    # clients
    "AsyncClient",
    "Client",
    "SyncClient",
    # inputs
    "from_csv",
    "from_files",
    "from_lines",
    "from_ndarray",
    "from_ndjson",
    # answers
    "DataRequest",
    "Header",
    "Response",
    "Route",
    # errors and retries
    "BadArguments",
    "RequestTimeout",
    "ServerUnavailable",
    "wait_or_raise_err",
]


@overload
def Client(
    host: str = ...,
    port: int | str | None = ...,
    protocol: str | None = ...,
    *,
    asyncio: Literal[False] = ...,
    **options: Unpack[ClientOptions],
) -> SyncClient: ...


@overload
def Client(
    host: str = ..., port: int | str | None = ..., protocol: str | None = ..., *, asyncio: Literal[True], **options: Unpack[ClientOptions]
) -> AsyncClient: ...


def Client(
    host: str = "127.0.0.1",
    port: int | str | None = None,
    protocol: str | None = None,
    *,
    asyncio: bool = False,
    **options: Unpack[ClientOptions],
) -> SyncClient | AsyncClient:
    """A client for the gateway, or the broker, at `host`; nothing connects before the first call.

    `host`: a name, or a URL with one of the schemes grpc, http, ws, grpcs, https, wss, with or without port; nats://host:4222/flow asks
    the workers of a flow without a gateway. `port` defaults to 80, with TLS 443. `protocol`: 'grpc' (default), 'http', 'websocket'.
    `asyncio=True` gives an `AsyncClient`. Options:

    - `tls`: encrypt, where no scheme says so; `tls_ca`: a PEM file of certificates to trust instead of the system's; `tls_cert` and
      `tls_key`: PEM files that say who the client is
    - `prefetch` (1000): requests open at a time in each post(); 0 = no limit
    - `prefetch_bytes` (4 MiB): the same in bytes, of requests and of answers that were not taken yet; four requests of any size may be
      open. To keep many replicas busy with large requests give their number times the size of a request
    - `show_progress`: a bar for each post()
    - `metadata`: pairs or a mapping sent with every request, as gRPC metadata or HTTP headers
    - `grpc_channel_options`: a dict or pairs for the gRPC channel
    - `proxy`: respect the proxy variables of the environment

    Raises `BadArguments` when something is given twice; warns about options that it does not know.
    """
    kind = AsyncClient if asyncio else SyncClient
    return kind(host, port, protocol, **options)
