"""A flow that is not on the broker: every command that names one says so, which there are, and ends with the code for wrong usage."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streamflow.broker import bucket
from streamflow.broker.bus import Bus
from streamflow.broker.errors import NotFound
from streamflow.broker.exit_codes import FAILED, USAGE
from streamflow.broker.flow import Graph, Node
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.cli.app import main


async def deployed(server: EmbeddedBroker, *flows: str) -> None:
    settings = BrokerSettings(broker_url=server.url)
    bus = await Bus.connect(settings, "test")
    for flow in flows:
        graph = Graph(flow, (Node("encoder"),))
        await provision(bus, graph, settings)
        await bucket.publish_graph(bus, graph)
    await bus.close()


def test_commands_name_the_flow_that_may_be_meant(
    own_broker: EmbeddedBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFLOW_BROKER_URL", own_broker.url)
    asyncio.run(deployed(own_broker, "shop", "news_of_today"))
    inputs = tmp_path / "inputs.jsonl"
    inputs.write_text('{"text": "a"}\n')
    commands = (
        ["job", "ls", "--flow", "shpo"],
        ["job", "status", "abc", "--flow", "shpo"],
        ["job", "results", "abc", "--flow", "shpo"],
        ["job", "cancel", "abc", "--flow", "shpo"],
        ["submit", "--flow", "shpo", "--on", "/x", "--inputs", str(inputs)],
        ["replay", "--flow", "shpo", "--job", "abc"],
        ["dlq", "ls", "--flow", "shpo"],
        ["queue", "ls", "shpo"],
    )
    for command in commands:
        code = main(command)
        said = capsys.readouterr().err
        assert code == USAGE and "'shpo'" in said and "did you mean 'shop'?" in said, (command, code, said)
    assert main(["ping", f"{own_broker.url}/shpo", "--attempts", "1"]) == FAILED  # it may still be deployed
    assert "flow 'shpo' is not on this broker, did you mean 'shop'?" in capsys.readouterr().err


async def test_all_flows_are_named_where_none_is_near(own_broker: EmbeddedBroker) -> None:
    await deployed(own_broker, "shop", "news_of_today")
    bus = await Bus.connect(BrokerSettings(broker_url=own_broker.url), "test")
    try:
        with pytest.raises(NotFound, match=r"flow 'xyz' is not on this broker: there are news_of_today, shop$"):
            await bucket.require(bus, "xyz")
        await bucket.require(bus, "news_of_today")
    finally:
        await bus.close()
