"""How a gRPC channel is made: options, compression, certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from .address import Address
from .errors import BadArguments
from .tls import TlsFiles
from .transport import CONNECT_S

_OPTIONS: dict[str, Any] = {
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
    # gRPC waits up to two minutes before it tries again; a caller's own back-off decides that here.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
    "grpc.min_reconnect_backoff_ms": round(CONNECT_S * 1000),  # also how long one attempt to connect may take
    "grpc.use_local_subchannel_pool": 1,
}


def open_channel(address: Address, options: dict[str, Any], proxy: bool) -> aio.Channel:
    """A channel to `address`, which connects on first use; `options` win over ours. Raises `BadArguments` for unusable certificates."""
    merged = list((_OPTIONS | {"grpc.enable_http_proxy": int(proxy)} | options).items())
    if address.tls:
        return aio.secure_channel(address.target, _credentials(address.files), merged)
    return aio.insecure_channel(address.target, merged)


def channel_options(given: Any) -> dict[str, Any]:
    """`grpc_channel_options` as a dict or as the pairs that gRPC itself takes. Raises `BadArguments` otherwise."""
    try:
        return dict(given or {})
    except (TypeError, ValueError):
        raise BadArguments(f"grpc_channel_options: expected a dict or a list of pairs, got {given!r}") from None


def compression(name: str | None) -> grpc.Compression:
    """The gRPC constant for `None`, 'Gzip' or 'Deflate', in any case. Raises `BadArguments` for others."""
    known = {item.name.lower(): item for item in grpc.Compression} | {"none": grpc.Compression.NoCompression}
    found = known.get((name or "none").lower())
    if found is None:
        raise BadArguments(f"compression {name!r}: use 'Gzip' or 'Deflate'")
    return found


def _credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    files.context()  # says in its own words what is wrong with them, where gRPC would only fail to connect
    return grpc.ssl_channel_credentials(*(Path(path).read_bytes() if path else None for path in (files.ca, files.key, files.cert)))
