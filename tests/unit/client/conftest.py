"""Fixtures: one server for each protocol, a client for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamflow.client import Client, SyncClient
from tests.unit.client.servers import KINDS, Running, protocol, serving


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """grpc = a streamflow gateway, jina = Jina's gRPC interface only, http, websocket."""
    name: str = request.param
    return name


@pytest.fixture
def server(kind: str) -> Iterator[Running]:
    with serving(kind) as running:
        yield running


@pytest.fixture
def client(kind: str, server: Running) -> Iterator[SyncClient]:
    with Client("127.0.0.1", server.port, protocol(kind)) as made:
        yield made
