"""P34 to P38: the connection never dies unseen, pulls never stall, what runs is kept alive, settings do not drift, storms pass."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamflow import Executor, requests
from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.drift import true_ack_wait_s
from streamflow.broker.errors import Code, StreamflowError, TooLarge
from streamflow.broker.flow import Graph, Node
from streamflow.broker.pull import Pull
from streamflow.broker.queues import list_queues, pause, resume
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.gateway.dispatch import Call
from tests.running import running
from tests.waiting import eventually

from .cluster import Cluster
from .proxy import Proxy

GRAPH = Graph("storm", (Node("e"),))
WORK = subjects.work_stream("storm", "e")
DETECTED_S = 15.0
Say = Callable[[str], None]


async def put(bus: Bus, *names: str) -> None:
    await asyncio.gather(*(bus.store_wait(subjects.work("storm", "e", "now", name), name.encode(), name) for name in names))


def took(got: list[bytes]) -> Callable[..., None]:
    def take(delivery: object) -> None:
        got.append(delivery.payload)  # type: ignore[attr-defined]
        delivery.ack()  # type: ignore[attr-defined]

    return take


def longer(items: list[bytes], count: int) -> Callable[[], bool]:
    return lambda: len(set(items)) > count


# P34: the connection


async def test_what_a_callback_raises_does_not_end_the_read_loop(bus: Bus, flow_name: str) -> None:
    heard: list[bytes] = []

    def sink(_subject: bytes, _reply: bytes, _header: bytes | None, payload: bytes) -> None:
        heard.append(payload)
        raise RuntimeError("a bug of ours")

    def done(_sequence: int, _error: StreamflowError | None) -> None:
        raise RuntimeError("another one")

    await bus.listen(f"{flow_name}.x", sink)
    bus.store(f"{flow_name}.no.stream", b"", "id", done)
    for number in range(3):
        bus.publish(f"{flow_name}.x", b"%d" % number)
        await eventually(longer(heard, number))
    await bus.flush()


async def test_a_subject_that_is_too_long_never_reaches_the_wire(bus: Bus) -> None:
    with pytest.raises(TooLarge, match="4096"):
        bus.publish("x" * 5000, b"")
    bus.publish("x" * 3000, b"")
    await bus.flush()
    assert bus.connected


@pytest.mark.slow
async def test_a_connection_that_fell_silent_is_given_up_and_made_anew(own_broker: EmbeddedBroker, say: Say) -> None:
    proxy = Proxy(own_broker.url)
    await proxy.start()
    settings = BrokerSettings(broker_url=proxy.url)
    bus = await Bus.connect(settings, "test")
    await provision(bus, GRAPH, settings)
    back = asyncio.Event()
    bus.on_reconnect(back.set)
    proxy.fall_silent()
    silent = time.monotonic()
    stored = asyncio.ensure_future(bus.store_wait(subjects.work("storm", "e", "now", "r1"), b"x", "r1"))
    await asyncio.wait_for(back.wait(), DETECTED_S)
    say(f"half-open connection: noticed and made anew after {time.monotonic() - silent:.1f} s")
    assert await asyncio.wait_for(stored, 5) == 1
    await bus.close()
    await proxy.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # nats-py leaves the last refused socket to the collector
async def test_a_user_whose_rights_end_is_told_and_not_left_hanging(tmp_path: Path, own_users: Path, own_server: EmbeddedBroker) -> None:
    settings = BrokerSettings(broker_url=own_server.url.replace("nats://", "nats://ann:one@"))
    bus = await Bus.connect(settings, "test")
    closed = asyncio.Event()
    bus.on_closed(closed.set)
    own_users.write_text('authorization { users: [{user: "bob", password: "two"}] }')
    os.kill(own_server.pid, signal.SIGHUP)
    await asyncio.wait_for(closed.wait(), DETECTED_S)
    assert not bus.connected
    await bus.close()


@pytest.fixture
def own_users(tmp_path: Path) -> Path:
    file = tmp_path / "users.conf"
    file.write_text('authorization { users: [{user: "ann", password: "one"}] }')
    return file


@pytest.fixture
def own_server(tmp_path: Path, own_users: Path) -> Iterator[EmbeddedBroker]:
    server = EmbeddedBroker(tmp_path / "broker", auth=own_users)
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
async def test_a_server_that_is_about_to_end_is_left(tmp_path: Path, say: Say) -> None:
    """Lame duck mode, in a cluster: go to another server before this one closes its connections (10 s later at the earliest)."""
    cluster = Cluster(tmp_path / "cluster", 0)
    cluster.start()
    try:
        settings = BrokerSettings(broker_url=cluster.servers[0].url, stream_replicas=3)
        bus = await Bus.connect(settings, "test")
        await provision(bus, GRAPH, settings)
        first, back = bus.server_id, asyncio.Event()
        bus.on_reconnect(back.set)
        cluster.servers[0].lame_duck()
        started = time.monotonic()
        await asyncio.wait_for(back.wait(), DETECTED_S)
        say(f"lame duck: on another server after {time.monotonic() - started:.1f} s")
        assert bus.server_id != first
        await put(bus, "r1")
        await bus.close()
    finally:
        cluster.stop()


# P35: pulls


async def test_more_pulls_than_the_consumer_allows_wait_and_go_on(own_broker: EmbeddedBroker) -> None:
    settings = BrokerSettings(broker_url=own_broker.url)
    bus = await Bus.connect(settings, "test")
    await provision(bus, GRAPH, settings)
    await bus.api(f"CONSUMER.DELETE.{WORK}.now")
    config = {"durable_name": "now", "ack_policy": "explicit", "filter_subject": "sf.storm.e.now.*", "max_waiting": 1}
    await bus.api(f"CONSUMER.CREATE.{WORK}.now.sf.storm.e.now.*", {"stream_name": WORK, "config": {**config, "name": "now"}})
    got: list[bytes] = []
    first, second = (Pull(bus, WORK, "now", took(got)) for _ in range(2))
    await first.start()
    await bus.flush()
    await second.start()
    await bus.flush()
    await first.stop()
    started = time.monotonic()
    await put(bus, "r1")
    await eventually(lambda: got == [b"r1"])
    assert time.monotonic() - started < 3.0, "the server forgets the request of one that left within two heartbeats"
    await second.stop()
    await bus.close()


async def test_a_pull_goes_on_within_a_second_after_a_pause(own_broker: EmbeddedBroker) -> None:
    settings = BrokerSettings(broker_url=own_broker.url)
    bus = await Bus.connect(settings, "test")
    await provision(bus, GRAPH, settings)
    got: list[bytes] = []
    pull = Pull(bus, WORK, "now", took(got), capacity=4)
    await pull.start()
    [queue] = [queue for queue in await list_queues(bus) if queue.lane == "now"]
    worst_s = 0.0
    for number in range(3):
        await pause(bus, queue)
        await put(bus, f"r{number}")
        assert len(got) == number
        await resume(bus, queue)
        started = time.monotonic()
        await eventually(longer(got, number))
        worst_s = max(worst_s, time.monotonic() - started)
    assert worst_s < 2.0
    await pull.stop()
    await bus.close()


# P36: keep-alive (and test_held_lock.py)

ACK_WAIT_S = 0.6


class Sleeps(Executor):
    runs = 0

    @requests
    def work(self, docs: Any, **kwargs: Any) -> None:
        Sleeps.runs += 1
        time.sleep(10 * ACK_WAIT_S)


@pytest.mark.slow
async def test_a_call_of_ten_ack_waits_runs_once(settings: BrokerSettings, flow_name: str) -> None:
    Sleeps.runs = 0
    async with running(settings, Graph(flow_name, (Node("e", ack_wait_s=ACK_WAIT_S),)), {"e": Sleeps}) as flow:
        flow.start_worker("e", Sleeps)
        assert (await asyncio.wait_for(flow.dispatcher.send(Call("/")), 30)).status.code is Code.OK
        assert Sleeps.runs == 1


# P37: no drift


async def test_fifty_workers_with_other_settings_change_nothing(
    bus: Bus, settings: BrokerSettings, flow_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    await provision(bus, Graph(flow_name, (Node("e"),)), settings)
    stream = subjects.work_stream(flow_name, "e")
    before = (await bus.api(f"CONSUMER.INFO.{stream}.now"))["config"]
    with caplog.at_level(logging.WARNING):
        found = await asyncio.gather(*(true_ack_wait_s(bus, [(stream, "now"), (stream, "bulk")], 1.0 + n) for n in range(50)))
    assert set(found) == {settings.ack_wait_s}, "a worker keeps alive by its own setting, not by the consumer's"
    assert (await bus.api(f"CONSUMER.INFO.{stream}.now"))["config"] == before
    sentence = f"consumer now of stream {stream}: ack_wait is 5 s, not"
    assert sum(sentence in record.getMessage() for record in caplog.records) == 49


@pytest.mark.slow
async def test_a_worker_with_another_ack_wait_keeps_its_work(settings: BrokerSettings, flow_name: str) -> None:
    """Its own setting says a minute: it would have said that it lives every 15 s, to a consumer that waits for 0.6 s."""
    Sleeps.runs = 0
    deployed = settings.model_copy(update={"ack_wait_s": ACK_WAIT_S})
    async with running(deployed, Graph(flow_name, (Node("e"),)), {}) as flow:
        flow.settings = settings.model_copy(update={"ack_wait_s": 60.0})
        flow.start_worker("e", Sleeps)
        assert (await asyncio.wait_for(flow.dispatcher.send(Call("/")), 30)).status.code is Code.OK
        assert Sleeps.runs == 1


# P38: storms


@pytest.mark.slow
async def test_two_hundred_clients_come_back_from_five_broker_restarts(own_broker: EmbeddedBroker, say: Say) -> None:
    settings = BrokerSettings(broker_url=own_broker.url)
    first = await Bus.connect(settings, "deployer")
    await provision(first, GRAPH, settings)
    buses = [first, *[await Bus.connect(settings, f"client {number}") for number in range(199)]]
    got: list[bytes] = []
    pulls = [Pull(bus, WORK, "now", took(got), capacity=2) for bus in buses]
    await asyncio.gather(*(pull.start() for pull in pulls))
    back_s = []
    for round_ in range(5):
        own_broker.kill()
        await eventually(lambda: not any(bus.connected for bus in buses))
        await asyncio.to_thread(own_broker.start)
        started = time.monotonic()
        await eventually(lambda: all(bus.connected for bus in buses), timeout_s=20, what="all clients are back")
        names = [f"{round_}-{number}" for number in range(200)]
        await put(first, *names)
        await eventually(longer(got, 200 * (round_ + 1) - 1), timeout_s=20)
        back_s.append(time.monotonic() - started)
    say(f"restart storm: 200 clients, served again {', '.join(f'{each:.1f}' for each in back_s)} s after the broker's port opened")
    consumers = await first.api(f"CONSUMER.NAMES.{WORK}")
    assert sorted(consumers["consumers"]) == ["bulk", "now"], "leaked consumers"
    [queue] = [queue for queue in await list_queues(first) if queue.lane == "now"]
    assert queue.workers <= 2 * len(buses), "leaked pull requests: each client has room for two deliveries, asked for one by one"
    assert max(back_s) <= 10.0
    await asyncio.gather(*(pull.stop() for pull in pulls))
    await asyncio.gather(*(bus.close() for bus in buses))
