"""The bus's promises against the real server: stored means acknowledged, errors are ours, an outage is survived."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streamflow.broker import accounts, bucket, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.errors import NotFound, Overloaded, StreamflowError, TooLarge, Unavailable
from streamflow.broker.flow import Graph, Node
from streamflow.broker.server import MAX_PAYLOAD_BYTES, EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from tests.chaos.proxy import Proxy
from tests.waiting import eventually


async def test_messages_of_every_size_up_to_the_limit_arrive_whole(bus: Bus) -> None:
    got: list[tuple[bytes, bytes]] = []
    await bus.listen("sizes.>", lambda subject, reply, header, payload: got.append((subject, payload)))
    sizes = [0, 1, 2, 1023, 65_536, 262_143, 262_144, 262_145, 1_000_000, MAX_PAYLOAD_BYTES]
    for size in sizes:
        bus.publish(f"sizes.{size}", bytes(size))
    await eventually(lambda: len(got) == len(sizes))
    assert [(subject, len(payload)) for subject, payload in got] == [(b"sizes.%d" % size, size) for size in sizes]


@pytest.mark.parametrize("header", [0, 64])
async def test_a_message_over_the_limit_never_reaches_the_wire_and_the_connection_stays(bus: Bus, header: int) -> None:
    with pytest.raises(TooLarge):
        bus.publish("sizes.over", bytes(MAX_PAYLOAD_BYTES + 1))
    refused: list[StreamflowError | None] = []
    bus.store("sizes.over", bytes(MAX_PAYLOAD_BYTES - header + 1), "x" * header, lambda sequence, error: refused.append(error))
    assert isinstance(refused[0], TooLarge)
    await bus.flush()
    assert bus.connected


async def test_a_stored_message_is_acknowledged_once_and_its_second_copy_dropped(
    bus: Bus, settings: BrokerSettings, flow_name: str
) -> None:
    graph = Graph(flow_name, (Node("a"),))
    await provision(bus, graph, settings)
    subject = subjects.work(flow_name, "a", "now", "r1")
    assert await bus.store_wait(subject, b"one", "id-1") == 1
    assert await bus.store_wait(subject, b"one again", "id-1") == 1
    assert await bus.store_wait(subject, b"two", "id-2") == 2
    info = await bus.api(f"STREAM.INFO.{subjects.work_stream(flow_name, 'a')}")
    assert info["state"]["messages"] == 2


@pytest.mark.feature("QU-05", "ER-09")
async def test_a_full_queue_refuses_as_overloaded(bus: Bus, settings: BrokerSettings, flow_name: str) -> None:
    await provision(bus, Graph(flow_name, (Node("a"),)), settings.model_copy(update={"max_queue_messages": 2}))
    for n in range(2):
        await bus.store_wait(subjects.work(flow_name, "a", "now", f"r{n}"), b"x", f"id-{n}")
    with pytest.raises(Overloaded, match="queue is full"):
        await bus.store_wait(subjects.work(flow_name, "a", "now", "r3"), b"x", "id-3")


async def test_storing_without_a_stream_says_that_the_flow_is_not_provisioned(bus: Bus) -> None:
    with pytest.raises(Unavailable, match="not provisioned"):
        await bus.store_wait("sf.nowhere.a.now.r", b"x", "id")


async def test_an_unknown_stream_is_not_found(bus: Bus) -> None:
    with pytest.raises(NotFound):
        await bus.api("STREAM.INFO.no_such_stream")


async def test_no_broker_is_said_with_its_address_and_what_to_do() -> None:
    settings = BrokerSettings(broker_url="nats://127.0.0.1:1", connect_wait_s=0.2)
    with pytest.raises(Unavailable, match=r"nats://127\.0\.0\.1:1.*streamflow broker"):
        await Bus.connect(settings, "test")


@pytest.mark.feature("QU-07")
async def test_publishes_and_subscriptions_survive_a_killed_broker(own_broker: EmbeddedBroker) -> None:
    settings = BrokerSettings(broker_url=own_broker.url)
    bus = await Bus.connect(settings, "test")
    await provision(bus, Graph("f", (Node("a"),)), settings)
    heard: list[bytes] = []
    await bus.listen("heard", lambda subject, reply, header, payload: heard.append(payload))
    back = asyncio.Event()
    bus.on_reconnect(back.set)

    own_broker.kill()
    await eventually(lambda: not bus.connected)
    stored = asyncio.ensure_future(bus.store_wait(subjects.work("f", "a", "now", "r1"), b"during the outage", "id-1"))
    own_broker.start()
    await asyncio.wait_for(back.wait(), 5)

    assert await asyncio.wait_for(stored, 5) == 1
    bus.publish("heard", b"again")
    await eventually(lambda: heard == [b"again"])
    await bus.close()


async def test_provisioning_twice_and_with_other_bounds_is_safe(bus: Bus, settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("a"), Node("b", needs=("a",))))
    await provision(bus, graph, settings)
    await bus.store_wait(subjects.work(flow_name, "b", "now", "r1"), b"kept", "id-1")
    await provision(bus, graph, settings.model_copy(update={"max_queue_messages": 77, "ack_wait_s": 3.0}))
    info = await bus.api(f"STREAM.INFO.{subjects.work_stream(flow_name, 'b')}")
    consumer = await bus.api(f"CONSUMER.INFO.{subjects.work_stream(flow_name, 'b')}.now")
    assert (info["state"]["messages"], info["config"]["max_msgs"], consumer["config"]["ack_wait"]) == (1, 77, 3_000_000_000)


async def test_a_graph_is_found_by_version_and_as_the_current_one(bus: Bus, settings: BrokerSettings, flow_name: str) -> None:
    first, second = Graph(flow_name, (Node("a"),)), Graph(flow_name, (Node("a"), Node("b", needs=("a",))))
    with pytest.raises((NotFound, Unavailable), match=flow_name):
        await bucket.load_graph(bus, flow_name)
    for graph in (first, second):
        await provision(bus, graph, settings)
    assert await bucket.load_graph(bus, flow_name) == second
    assert await bucket.load_graph(bus, flow_name, first.version) == first


async def test_what_only_looks_is_asked_again_after_a_reconnect(own_broker: EmbeddedBroker) -> None:
    """The answer went into a connection that was dead already."""
    proxy = Proxy(own_broker.url)
    await proxy.start()
    settings = BrokerSettings(broker_url=proxy.url)
    bus = await Bus.connect(settings, "test")
    await provision(bus, Graph("shop", (Node("e"),)), settings)
    proxy.fall_silent()
    asked = asyncio.create_task(bus.api(f"STREAM.INFO.{subjects.work_stream('shop', 'e')}", timeout_s=15))
    await asyncio.sleep(0)  # sent
    proxy.cut()
    info = await asyncio.wait_for(asked, 5)
    assert info["state"]["messages"] == 0
    await bus.close()
    await proxy.stop()


async def test_a_user_that_the_broker_does_not_know_is_told_so(tmp_path: Path) -> None:
    """There is a broker: nobody should go and start one."""
    keys = tmp_path / "auth"
    accounts.write(keys, "default", [Graph("shop", (Node("e"),))])
    server = EmbeddedBroker(tmp_path / "broker", auth=keys / accounts.AUTH_FILE)
    server.start()
    try:
        with pytest.raises(Unavailable) as told:
            await Bus.connect(BrokerSettings(broker_url=server.url, connect_wait_s=1.0), "stranger")
    finally:
        server.stop()
    assert str(told.value).startswith(f"the broker at {server.url}: it refuses this user")
    assert "STREAMFLOW_BROKER_CREDENTIALS" in str(told.value) and "streamflow broker" not in str(told.value)
