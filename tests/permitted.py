"""A broker with users: each role of a flow may do what it needs, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamflow.broker import accounts
from streamflow.broker.accounts import AUTH_FILE
from streamflow.broker.flow import Graph
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings


@contextmanager
def permitted(folder: Path, graph: Graph) -> Iterator[BrokerSettings]:
    """Settings with the keys of all roles of `graph`; keys and data are in `folder`."""
    accounts.write(folder / "keys", "default", [graph])
    broker = EmbeddedBroker(folder / "broker", auth=folder / "keys" / AUTH_FILE)
    broker.start()
    yield BrokerSettings(broker_url=broker.url, broker_credentials=str(folder / "keys" / "default"), connect_wait_s=5)
    broker.stop()
