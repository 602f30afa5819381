"""Requests under an id: accepted once, run once, recorded once, whatever dies in between and however often they are sent."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import JSON, Envelope
from streamflow.broker.flow import Graph, Node
from streamflow.broker.hops import Message, first_messages
from streamflow.broker.routing import first_steps
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from tests.e2e.checker import Done, stream_states
from tests.e2e.programs import Programs
from tests.waiting import eventually

from .returning import Returning, recorded
from .scenarios import MARK, Parts, accepted, names
from .sizes import LIMIT_S, SEED, size

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S), pytest.mark.feature("GW-13", "QU-02")]
Say = Callable[[str], None]
FLOW, QUEUE = "parts", "sf_parts_work"


async def recorded_once(broker_url: str, count: int) -> None:
    found = await recorded(broker_url, FLOW)
    assert len(found) == count and set(found.values()) == {1}, f"{len(found)} of {count} recorded, {max(found.values())} times at most"


async def queue_empty(broker_url: str) -> None:
    async def is_empty() -> bool:
        return not (await stream_states(broker_url))[QUEUE]["messages"]

    await eventually(is_empty, 120, "the queue is empty")


async def test_a_gateway_dies_with_thousands_of_kept_requests_in_flight(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    """P5: every client that comes back with its id gets its result, from a second gateway."""
    requests = size("P5_REQUESTS", 5000, 10_000)
    parts = Parts(programs, own_broker, pause_s=0.005)
    first, url = parts.gateway()
    parts.workers(2)
    lost = Returning([url.removesuffix("/run")])
    sending = asyncio.create_task(lost.send(names(requests), requests))
    await accepted(own_broker.url, parts.ledger, requests)
    at_kill = len(Done.read(parts.ledger).attempts)
    first.kill()
    assert at_kill < requests, "too late: all was done before the gateway died"
    sending.cancel()
    await asyncio.wait([sending])
    answered = len(lost.answers)
    _, url = parts.gateway()
    back = Returning([url.removesuffix("/run")])
    half = names(requests)[::2]
    seconds = await back.fetch(half, 200)  # one half asks for its results, the other half sends again
    seconds += await back.send(names(requests)[1::2], 200)
    back.check(names(requests), MARK)
    await recorded_once(own_broker.url, requests)
    done = Done.read(parts.ledger)
    assert set(done.attempts) == set(names(requests)) and done.repeated == 0
    say(
        f"P5 gateway killed with {requests - answered} of {requests} kept requests unanswered ({requests - at_kill} not run yet): "
        f"all came back with their ids to a second gateway and had their answers within {seconds:.1f} s; "
        f"{done.repeated} ran twice, all recorded once"
    )


async def test_keys_sent_several_times_at_once_and_across_broker_restarts(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    """P10: one recorded execution for each key."""
    keys, chance = size("P10_KEYS", 20_000, 200_000), random.Random(SEED)
    parts = Parts(programs, own_broker)
    gateways = [parts.gateway()[1].removesuffix("/run") for _ in range(2)]
    parts.workers(2)
    sendings = [name for name in names(keys) for _ in range(chance.randint(1, 10))]
    # Most copies close together, so that they meet; the rest anywhere in the run.
    places = [at + (chance.uniform(0, len(sendings)) if chance.random() < 0.2 else chance.uniform(0, 100)) for at in range(len(sendings))]
    order = [name for _, name in sorted(zip(places, sendings, strict=True))]
    clients = Returning(gateways)
    sending = asyncio.create_task(clients.send(order, 64))
    restarts = 0
    while not sending.done() and restarts < 2:
        await asyncio.wait([sending], timeout=15)
        own_broker.kill()
        await asyncio.to_thread(own_broker.start)
        restarts += 1
    seconds = await sending
    clients.check(order, MARK)
    await queue_empty(own_broker.url)
    await recorded_once(own_broker.url, keys)
    done = Done.read(parts.ledger)
    assert set(done.attempts) == set(names(keys))
    async with asyncio.timeout(60):
        other = Returning(gateways)
        await other.fetch(names(keys)[:: max(1, keys // 200)], 16)
        other.check(names(keys)[:: max(1, keys // 200)], MARK)
    say(
        f"P10 {keys} keys in {len(order)} sendings over two gateways, {restarts} broker kills (seed {SEED}): {seconds:.0f} s, "
        f"{len(order) / seconds:.0f} sendings/s, {clients.broken} connections broken, {clients.busy} told to come again; "
        f"{keys} recorded once, {done.repeated} run once more ({done.redelivered} of them as redeliveries)"
    )


async def test_duplicate_deliveries_and_late_acks_are_recorded_once(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    """30 % of the work published again, with and without message ids, and a worker that acks too late."""
    requests, chance = size("DUPLICATES", 5000, 100_000), random.Random(SEED)
    parts = Parts(programs, own_broker, pause_s=0.001)
    parts.gateway()
    workers = parts.workers(2)
    bus = await Bus.connect(BrokerSettings(broker_url=own_broker.url), "duplicates")
    try:
        copies = 0
        room = asyncio.Semaphore(256)
        async with asyncio.TaskGroup() as group:
            for number, message in enumerate(messages(requests)):
                again = chance.randint(1, 3) if chance.random() < 0.3 else 0
                copies += again
                for copy in range(1 + again):
                    await room.acquire()
                    message_id = message.message_id if not copy else f"copy-{number}-{copy}"
                    task = group.create_task(bus.store_wait(message.subject, message.payload, message_id))
                    task.add_done_callback(lambda _: room.release())
                if number == requests // 3:
                    workers[0].send(signal.SIGSTOP)
                    frozen = monotonic()
        await asyncio.sleep(max(0.0, 8.0 - (monotonic() - frozen)))  # longer than ack_wait: what it holds goes elsewhere
        workers[0].send(signal.SIGCONT)
        await queue_empty(own_broker.url)
    finally:
        await bus.close()
    await recorded_once(own_broker.url, requests)
    done = Done.read(parts.ledger)
    assert set(done.attempts) == set(names(requests)) and done.repeated >= copies * 0.9
    say(
        f"duplicates: {requests} requests, {copies} copies injected, one worker frozen for 8 s (seed {SEED}): "
        f"{done.repeated} executions beyond the first, {done.redelivered} redeliveries, 0 recorded twice"
    )


def messages(requests: int) -> Iterator[Message]:
    """Work as a gateway publishes it for kept requests."""
    graph = Graph(FLOW, (Node("work"),))
    for name in names(requests):
        body = b'{"data":[{"id":"%b","text":"%b"}]}' % (name.encode(), name.encode())
        record = f"{subjects.ONLINE}.{subjects.digest(name)}"
        envelope = Envelope(f"q{name}", FLOW, graph.version, "/run", content_type=JSON, accept=JSON, record=record, body=body)
        yield from first_messages(graph, envelope, first_steps(graph, "/run", ""))
