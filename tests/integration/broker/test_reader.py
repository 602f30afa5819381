"""Reading a stream in order, over broker restarts and lost consumers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from streamflow.broker import reader
from streamflow.broker.bus import Bus
from streamflow.broker.errors import AlreadyExists, NotFound
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings

STREAM = "numbers"


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    server = EmbeddedBroker()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def bus(broker: EmbeddedBroker) -> AsyncIterator[Bus]:
    bus = await Bus.connect(BrokerSettings(broker_url=broker.url), "reader")
    config = {"name": STREAM, "subjects": ["n.*"], "storage": "file", "allow_direct": True, "allow_msg_ttl": True}
    await bus.api(f"STREAM.CREATE.{STREAM}", config)
    yield bus
    await bus.close()


async def fill(bus: Bus, start: int, stop: int) -> None:
    await asyncio.gather(*(bus.store_wait(f"n.{'even' if n % 2 == 0 else 'odd'}", b"%d" % n, f"n{n}") for n in range(start, stop)))


async def test_reads_to_the_present_end_and_counts(bus: Bus) -> None:
    await fill(bus, 0, 1000)
    found = [int(message.payload) async for message in reader.read(bus, STREAM)]
    assert found == list(range(1000))
    evens = [message.sequence async for message in reader.read(bus, STREAM, "n.even", after=900)]
    assert evens == list(range(901, 1001, 2))
    assert await reader.count(bus, STREAM, "n.odd") == 500
    assert await reader.count(bus, STREAM, "n.none") == 0
    assert [message async for message in reader.read(bus, STREAM, "n.none")] == []


async def test_starts_at_a_time(bus: Bus) -> None:
    await fill(bus, 0, 10)
    times = [message.time async for message in reader.read(bus, STREAM)]
    later = [int(message.payload) async for message in reader.read(bus, STREAM, since=times[6])]
    assert later == [6, 7, 8, 9]


async def test_unknown_stream(bus: Bus) -> None:
    with pytest.raises(NotFound):
        [message async for message in reader.read(bus, "nothing")]


async def test_follows_over_broker_restarts_without_gap_or_repeat(bus: Bus, broker: EmbeddedBroker) -> None:
    found: list[int] = []
    async with aclosing(reader.read(bus, STREAM, follow=True)) as messages:
        for part in range(3):
            await fill(bus, part * 500, part * 500 + 500)
            async for message in messages:
                found.append(int(message.payload))
                if len(found) == part * 500 + 250:
                    broker.kill()
                    broker.start()
                if len(found) == (part + 1) * 500:
                    break
    assert found == list(range(1500))


async def test_a_lost_consumer_is_replaced(bus: Bus) -> None:
    await fill(bus, 0, 600)
    found: list[int] = []
    async for message in reader.read(bus, STREAM):
        found.append(int(message.payload))
        if len(found) == 10:
            for name in (await bus.api(f"CONSUMER.NAMES.{STREAM}"))["consumers"]:
                await bus.api(f"CONSUMER.DELETE.{STREAM}.{name}")
    assert found == list(range(600))
    assert (await bus.api(f"CONSUMER.NAMES.{STREAM}"))["consumers"] is None or not (await bus.api(f"CONSUMER.NAMES.{STREAM}"))["consumers"]


async def test_what_is_removed_before_it_was_sent_is_not_waited_for(bus: Bus) -> None:
    await fill(bus, 0, 1000)
    found: list[int] = []
    async with asyncio.timeout(10):
        async for message in reader.read(bus, STREAM):
            found.append(int(message.payload))
            if len(found) == 1:
                await bus.api(f"STREAM.PURGE.{STREAM}")
    assert found == list(range(len(found)))
    assert len(found) < 1000


async def test_the_first_writer_wins_also_after_a_broker_restart(bus: Bus, broker: EmbeddedBroker) -> None:
    await bus.store_first_wait("n.slot", b"first")
    broker.kill()
    broker.start()
    with pytest.raises(AlreadyExists):
        await bus.store_first_wait("n.slot", b"second")
    assert await bus.direct_get(STREAM, "n.slot") == b"first"


async def test_a_slot_with_a_time_to_live_frees_itself(bus: Bus) -> None:
    await bus.store_first_wait("n.brief", b"one", keep_s=1)
    async with asyncio.timeout(5):
        while await bus.direct_get(STREAM, "n.brief") is not None:
            await asyncio.sleep(0.05)
    await bus.store_first_wait("n.brief", b"two")
    assert await bus.direct_get(STREAM, "n.brief") == b"two"


async def test_names_alone_are_read_without_the_payloads(bus: Bus) -> None:
    await fill(bus, 0, 10)
    found = [(message.sequence, message.subject, message.payload) async for message in reader.read(bus, STREAM, "n.odd", headers_only=True)]
    assert found == [(sequence, "n.odd", b"") for sequence in range(2, 11, 2)]
