"""Fixtures: the real embedded broker, one per test session, each test with a flow name of its own."""

from __future__ import annotations

import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from streamflow.broker.bus import Bus
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from tests.results import Recorder


def pytest_configure(config: pytest.Config) -> None:
    # Processes that tests start inherit what is ignored: SIGHUP under nohup, SIGINT in the background of a script.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(Recorder())


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A nats-server of the session's own; missing binary = failure, never a skip."""
    server = EmbeddedBroker(tmp_path_factory.mktemp("broker"), limits="max_file_store: 100TB")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """A nats-server that the test may kill and restart."""
    server = EmbeddedBroker(tmp_path / "broker")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def flow_name() -> str:
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
def settings(broker: EmbeddedBroker) -> BrokerSettings:
    return BrokerSettings(broker_url=broker.url)


@pytest.fixture
async def bus(settings: BrokerSettings) -> AsyncIterator[Bus]:
    connection = await Bus.connect(settings, "test")
    yield connection
    await connection.close()
