"""A target that serves an app: started, ready, correct, and stopped whatever happens."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from .drivers.ready import wait_grpc, wait_http
from .process import Server
from .profiles import Profile
from .targets import Target
from .targets.base import HOST

READY_LIMIT_S = 60.0
TEXT_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Serving:
    """A ready server. `body` is a file with the one request that HTTP drivers repeat."""

    target: Target
    profile: Profile
    server: Server
    port: int
    body: Path
    cold_s: float

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/{self.profile.app.endpoint}"

    @property
    def grpc(self) -> str:
        return f"grpc://{HOST}:{self.port}"


@contextmanager
def serve(target: Target, profile: Profile) -> Iterator[Serving]:
    """Start `target` with the profile's app and wait for its first answer."""
    with tempfile.TemporaryDirectory(prefix="load-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        port = free_port()
        body = folder / "body.json"
        body.write_bytes(one_document())
        server = Server(target.command(profile.app, profile.protocol, port, folder), folder)
        try:
            yield Serving(target, profile, server, port, body, _ready(server, profile, port, body))
        finally:
            server.stop()


def _ready(server: Server, profile: Profile, port: int, body: Path) -> float:
    if profile.protocol == "grpc":
        return wait_grpc(server, f"{HOST}:{port}", READY_LIMIT_S)
    expected = profile.app.expected(text()).encode()
    return wait_http(server, f"http://{HOST}:{port}/{profile.app.endpoint}", body.read_bytes(), expected, READY_LIMIT_S)


def text() -> str:
    """1 KiB of plain text."""
    return ("the quick brown fox jumps over the lazy dog " * 24)[:TEXT_BYTES]


def one_document() -> bytes:
    return orjson.dumps({"data": [{"id": "00000000000000000000000000000001", "text": text()}]})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
