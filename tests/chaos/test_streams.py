"""Streams at full size: a hundred readers at once over every protocol, and while workers die."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import cycle

import psutil
import pytest

from tests.e2e.checker import nothing_left
from tests.e2e.programs import Programs
from tests.e2e.streams import WAYS, executor, read, serve

from .scenarios import every
from .sizes import SEED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.feature("EX-14")]
ENDPOINTS = ("/say", "/tell")


@pytest.mark.parametrize("every_s", [0.0, 3.0])
async def test_a_hundred_streams_of_a_thousand_documents(programs: Programs, say: Callable[[str], None], every_s: float) -> None:
    """Through three executors with two replicas each: in order, whole, unmixed. With `every_s` a worker is killed that often."""
    ledger = programs.folder / "ledger"
    marks = [executor(name, "Mark", mark=mark, ledger=str(ledger), replicas=2) for name, mark in (("one", "+"), ("two", "!"))]
    served = serve(programs, "hundred", *marks, ack_wait_s=1.0, talkers=2)
    chance, kills = random.Random(SEED), 0

    async def kill() -> None:
        nonlocal kills
        alive = [pid for pid in served.worker_pids() if psutil.pid_exists(pid)]
        psutil.Process(chance.choice(alive)).kill()
        kills += 1

    ways = [way for way, _ in zip(cycle(WAYS.values()), range(100), strict=False)]
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        if every_s:
            await stack.enter_async_context(every(every_s, kill))
        streams = [read(way, served, ENDPOINTS[at % 2], f"c{at}", n=1000) for at, way in enumerate(ways)]
        found = await asyncio.gather(*streams)
    seconds = time.monotonic() - began
    for at, docs in enumerate(found):
        assert [(doc["text"], doc["number"]) for doc in docs] == [(f"c{at}+!", number) for number in range(1000)]
    await nothing_left(served.broker_url)
    say(f"100 streams of 1000 documents through 3 executors in {seconds:.1f} s, {kills} kills (seed {SEED})")
