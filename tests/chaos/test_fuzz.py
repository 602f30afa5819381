"""Mutated requests in full number: `make fuzz`. `FUZZ_SEED` repeats a run, `FUZZ_NUMBER` sets how many per protocol (20,000)."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from typing import Any

import nats
import pytest

from streamflow.broker.server import EmbeddedBroker
from tests.e2e.checker import Load, stream_states
from tests.e2e.programs import Programs

from .documents import envelopes
from .fuzzing import FUZZERS, Target, serve, unharmed
from .scenarios import Parts

SEED = int(os.environ.get("FUZZ_SEED", secrets.randbelow(1 << 31)))
NUMBER = int(os.environ.get("FUZZ_NUMBER", 20_000))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def target(module_programs: Programs) -> Target:
    return serve(module_programs)


@pytest.mark.parametrize("protocol", FUZZERS)
async def test_mutated_requests(target: Target, protocol: str, say: Callable[[str], None]) -> None:
    async with unharmed(target):
        tally = await FUZZERS[protocol](target, SEED, NUMBER)
    say(f"{NUMBER} mutated requests over {protocol}: {tally} (seed {SEED})")
    assert not tally.unclean, f"{len(tally.unclean)} unclean answers, such as {tally.unclean[:3]}"


async def test_mutated_envelopes(programs: Programs, own_broker: EmbeddedBroker, say: Callable[[str], None]) -> None:
    """What somebody with access to the broker could put into a queue: settled one way or the other, and the workers live on."""
    number = min(NUMBER, 3000)
    parts = Parts(programs, own_broker)
    _, url = parts.gateway()
    workers = parts.workers(2)
    valid = await overheard(own_broker.url, Load(url))
    client = await nats.connect(own_broker.url)
    for at, message in enumerate(envelopes(SEED, number, valid)):
        await client.publish(f"sf.parts.work.now.spy{at}", message)
    await client.drain()
    dead = await settled(own_broker.url, "work")
    load = Load(url)
    await load.run(["after"])
    say(f"{number} mutated envelopes: {dead} quarantined (seed {SEED})")
    assert [(one.status, one.text) for one in load.seen] == [(200, "after+")]
    assert all(worker.process.poll() is None for worker in workers)


async def overheard(broker_url: str, load: Load) -> list[bytes]:
    """The envelopes of a few good requests."""
    found: list[bytes] = []

    async def heard(message: Any) -> None:
        found.append(message.data)

    client = await nats.connect(broker_url)
    await client.subscribe("sf.parts.work.now.>", cb=heard)
    await client.flush()
    await load.run(["a", "b", "c"])
    await client.drain()
    return found


async def settled(broker_url: str, queue: str) -> int:
    """Wait until nothing waits in `queue`. Returns how many messages were quarantined."""
    limit = time.monotonic() + 60
    while True:
        states = await stream_states(broker_url)
        left = sum(state["unsettled"] for name, state in states.items() if name.endswith(queue))
        if not left:
            return sum(int(state["messages"]) for name, state in states.items() if name.endswith("dead"))
        assert time.monotonic() < limit, f"{left} messages are never settled"
        await asyncio.sleep(0.2)
