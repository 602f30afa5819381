"""The pull loop against the real server: order, credit, redelivery, sharing, restarts, and no stall."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial

import pytest

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.flow import Graph, Node
from streamflow.broker.pull import FINISHING, Delivery, Pull
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from tests.waiting import eventually

pytestmark = pytest.mark.feature("QU-02")


@pytest.fixture
async def stream(bus: Bus, settings: BrokerSettings, flow_name: str) -> AsyncIterator[str]:
    await provision(bus, Graph(flow_name, (Node("a", ack_wait_s=1.0),)), settings)
    yield subjects.work_stream(flow_name, "a")


async def put(bus: Bus, flow: str, *numbers: int) -> None:
    await asyncio.gather(*(bus.store_wait(subjects.work(flow, "a", "now", f"r{n}"), b"%d" % n, f"id-{n}") for n in numbers))


async def test_deliveries_come_in_order_and_an_ack_removes_them(bus: Bus, stream: str, flow_name: str) -> None:
    got: list[Delivery] = []
    for n in range(100):
        await put(bus, flow_name, n)
    pull = Pull(bus, stream, "now", lambda delivery: (got.append(delivery), delivery.ack())[0], capacity=7)
    await pull.start()
    await eventually(lambda: len(got) == 100)
    await pull.stop()
    await bus.flush()
    assert [int(delivery.payload) for delivery in got] == list(range(100))
    assert pull.held == 0
    assert (await bus.api(f"STREAM.INFO.{stream}"))["state"]["messages"] == 0


async def test_no_more_is_held_than_there_is_room_for(bus: Bus, stream: str, flow_name: str) -> None:
    held: list[Delivery] = []
    most = 0

    def take(delivery: Delivery) -> None:
        nonlocal most
        held.append(delivery)
        most = max(most, len(held))

    await put(bus, flow_name, *range(50))
    pull = Pull(bus, stream, "now", take, capacity=3)
    await pull.start()
    for _ in range(50):
        await eventually(lambda: len(held) > 0)
        held.pop(0).ack()
    await pull.stop()
    assert most == 3


async def test_nak_brings_it_back_after_its_delay_with_a_higher_attempt(bus: Bus, stream: str, flow_name: str) -> None:
    seen: list[tuple[int, float]] = []

    def take(delivery: Delivery) -> None:
        seen.append((delivery.attempt, time.monotonic()))
        delivery.nak(delay_s=0.3) if delivery.attempt < 3 else delivery.ack()

    pull = Pull(bus, stream, "now", take)
    await pull.start()
    await put(bus, flow_name, 1)
    await eventually(lambda: len(seen) == 3)
    await pull.stop()
    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    assert seen[1][1] - seen[0][1] >= 0.29


async def test_a_missed_ack_wait_redelivers_and_term_does_not(bus: Bus, stream: str, flow_name: str) -> None:
    seen: list[tuple[bytes, int]] = []

    def take(delivery: Delivery) -> None:
        seen.append((delivery.payload, delivery.attempt))
        if delivery.payload == b"2":
            delivery.term()
        elif delivery.attempt == 2:
            delivery.ack()

    pull = Pull(bus, stream, "now", take, capacity=10)
    await pull.start()
    await put(bus, flow_name, 1, 2)
    await eventually(lambda: (b"1", 2) in seen)
    await pull.stop()
    assert seen.count((b"2", 1)) == 1 and (b"2", 2) not in seen


async def test_settling_twice_counts_once(bus: Bus, stream: str, flow_name: str) -> None:
    got: list[Delivery] = []
    pull = Pull(bus, stream, "now", got.append, capacity=2)
    await pull.start()
    await put(bus, flow_name, 1)
    await eventually(lambda: got)
    got[0].ack()
    got[0].nak()
    assert pull.held == 0
    await pull.stop()


@pytest.mark.feature("SC-01")
async def test_two_pulls_share_and_the_idle_one_gets_the_work(bus: Bus, stream: str, flow_name: str) -> None:
    quick: list[bytes] = []
    stuck: list[Delivery] = []

    def answer(delivery: Delivery) -> None:
        quick.append(delivery.payload)
        delivery.ack()

    slow, fast = Pull(bus, stream, "now", stuck.append, capacity=1), Pull(bus, stream, "now", answer, capacity=1)
    await slow.start()
    await put(bus, flow_name, 0)
    await eventually(lambda: stuck)
    await fast.start()
    await put(bus, flow_name, *range(1, 30))
    await eventually(lambda: len(quick) == 29)
    stuck[0].ack()
    await slow.stop()
    await fast.stop()


async def test_stop_loses_nothing_that_was_on_its_way(bus: Bus, stream: str, flow_name: str) -> None:
    got: list[Delivery] = []
    pull = Pull(bus, stream, "now", got.append, capacity=64)
    await put(bus, flow_name, *range(200))
    await pull.start()
    await pull.stop()
    held = len(got)
    for delivery in got:
        delivery.ack()
    rest: list[bytes] = []
    other = Pull(bus, stream, "now", lambda delivery: (rest.append(delivery.payload), delivery.ack())[0], capacity=64)
    await other.start()
    await eventually(lambda: len(rest) + held == 200)
    await other.stop()
    assert sorted(int(p) for p in [*rest, *(d.payload for d in got)]) == list(range(200))


async def test_a_publish_after_an_idle_time_is_delivered_at_once(bus: Bus, stream: str, flow_name: str) -> None:
    """The stall of nats.py#986: a pull that was orphaned hid messages for seconds. 300 publishes with pauses, none waits 1 s."""
    arrived: dict[bytes, float] = {}

    def take(delivery: Delivery) -> None:
        arrived[delivery.payload] = time.monotonic()
        delivery.ack()

    pull = Pull(bus, stream, "now", take, capacity=4)
    await pull.start()
    worst = 0.0
    for n in range(300):
        sent = time.monotonic()
        await put(bus, flow_name, n)
        await eventually(lambda n=n: b"%d" % n in arrived, what=f"delivery {n}")
        worst = max(worst, arrived[b"%d" % n] - sent)
        pull.set_capacity(1 + n % 5)
    await pull.stop()
    assert worst < 1.0


@pytest.mark.feature("QU-07")
async def test_pulls_go_on_after_a_killed_broker_without_waiting_for_their_expiry(own_broker: EmbeddedBroker) -> None:
    settings = BrokerSettings(broker_url=own_broker.url)
    bus = await Bus.connect(settings, "test")
    await provision(bus, Graph("f", (Node("a"),)), settings)
    got: list[bytes] = []
    pull = Pull(bus, subjects.work_stream("f", "a"), "now", lambda d: (got.append(d.payload), d.ack())[0], capacity=4)
    await pull.start()
    for round_ in range(3):
        own_broker.kill()
        await eventually(lambda: not bus.connected)
        own_broker.start()
        port_open = time.monotonic()
        await put(bus, "f", round_)
        await eventually(lambda round_=round_: b"%d" % round_ in got)
        assert time.monotonic() - port_open < 2.0
    await pull.stop()
    await bus.close()


async def test_a_consumer_made_anew_is_found_again(bus: Bus, stream: str, settings: BrokerSettings, flow_name: str) -> None:
    got: list[bytes] = []
    pull = Pull(bus, stream, "now", lambda d: (got.append(d.payload), d.ack())[0], capacity=4)
    await pull.start()
    await bus.api(f"CONSUMER.DELETE.{stream}.now")
    await provision(bus, Graph(flow_name, (Node("a"),)), settings)
    await put(bus, flow_name, 1)
    await eventually(lambda: got == [b"1"], timeout_s=8)
    await pull.stop()


async def test_what_ran_and_waits_for_the_broker_takes_no_room_within_bounds(bus: Bus, stream: str, flow_name: str) -> None:
    held: list[Delivery] = []

    def has(number: int) -> bool:
        return len(held) == number

    await put(bus, flow_name, *range(2 * FINISHING))
    pull = Pull(bus, stream, "now", held.append, capacity=1)
    await pull.start()
    for ran in range(FINISHING + 1):
        await eventually(partial(has, ran + 1))
        assert pull.running == 1
        held[-1].ran()
    assert len(held) == pull.held == FINISHING + 1
    held[0].ack()
    await eventually(lambda: len(held) == FINISHING + 2)
    await pull.stop()


async def test_no_more_bytes_are_held_than_there_is_room_for(bus: Bus, stream: str, flow_name: str) -> None:
    large, limit = bytes(300_000), 2_000_000
    held: list[Delivery] = []
    most = taken = 0

    def take(delivery: Delivery) -> None:
        nonlocal most, taken
        held.append(delivery)
        taken += 1
        most = max(most, sum(len(each.payload) for each in held))

    await asyncio.gather(*(bus.store_wait(subjects.work(flow_name, "a", "now", f"r{n}"), large, f"id-{n}") for n in range(40)))
    pull = Pull(bus, stream, "now", take, capacity=256, max_bytes=limit)
    began = time.monotonic()
    await pull.start()
    for _ in range(40):
        await eventually(lambda: len(held) > 0)
        held.pop(0).ack()
    await pull.stop()
    assert taken == 40 and 600_000 <= most <= limit
    assert time.monotonic() - began < 2.0, "it waited for a heartbeat to be missed"


async def test_while_there_is_no_consumer_it_is_asked_for_four_times_a_second(
    bus: Bus, stream: str, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    publish = bus.publish

    def counted(subject: str, payload: bytes, reply: str = "", *, lazy: bool = False) -> None:
        asked.append(subject)
        publish(subject, payload, reply, lazy=lazy)

    held: list[Delivery] = []
    pull = Pull(bus, stream, "now", held.append, capacity=4)
    await pull.start()
    consumer = await bus.api(f"CONSUMER.INFO.{stream}.now")
    await bus.api(f"CONSUMER.DELETE.{stream}.now")
    monkeypatch.setattr(bus, "publish", counted)
    started = time.monotonic()
    await eventually(lambda: len(asked) >= 12)
    assert time.monotonic() - started >= 2.0, "each refusal set off another round of asking"
    await put(bus, flow_name, *range(8))
    subject = consumer["config"]["filter_subject"]
    await bus.api(f"CONSUMER.CREATE.{stream}.now.{subject}", {"stream_name": stream, "config": consumer["config"]})
    await eventually(lambda: len(held) == 4)
    await bus.flush()
    assert len(held) == 4
    await pull.stop()
