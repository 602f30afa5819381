"""Promise P18: nothing is begun that nobody waits for any more, and who waited is told in time."""

from __future__ import annotations

import asyncio
import json
import random
import time
from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from streamflow.broker.bus import Bus
from streamflow.broker.envelope import JSON, Envelope
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.gateway.dispatch import Call, Dispatcher
from tests.e2e.checker import nothing_left
from tests.e2e.programs import Programs

from .scenarios import ready
from .sizes import LIMIT_S, SEED, size

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S), pytest.mark.feature("ER-03")]
PULSE_S = 0.005
LATE_START_S = 0.05
LATE_ANSWER_S = 0.1
RATE = 500.0  # per second: more than the two workers do, so that the queue holds requests that expire there


async def test_p18_random_deadlines(programs: Programs, own_broker: EmbeddedBroker, say: Callable[[str], None]) -> None:
    """Deadlines between 1 ms and 1.5 s from a dispatcher in this process; the workers are processes that write down when they begin."""
    count, chance, ledger = size("P18_REQUESTS", 20_000, 200_000), random.Random(SEED), programs.folder / "ledger"
    settings = BrokerSettings(broker_url=own_broker.url)
    graph = Graph("deadlines", (Node("work"),))
    bus = await Bus.connect(settings, "test")
    await provision(bus, graph, settings)
    dispatcher = Dispatcher(bus, graph)
    await dispatcher.start()
    for _ in range(2):
        await ready(programs.worker(own_broker.url, "deadlines", "work", ledger=str(ledger), pause_s=0.005))
    deadlines: dict[str, float] = {}
    ended: dict[str, tuple[float, Envelope]] = {}
    pulse = Pulse()
    beating = asyncio.create_task(pulse.beat())
    began = time.time()
    pending: set[asyncio.Future[Envelope]] = set()
    for number in range(count):
        early = began + number / RATE - time.time()
        await asyncio.sleep(early if early > 0.002 else 0)  # also when late: answers are read in between
        name = f"r{number}"
        deadlines[name] = time.time() + chance.uniform(0.001, 1.5)
        body = json.dumps({"data": [{"id": name, "text": name}]}).encode()
        future = dispatcher.send(Call("/run", body, JSON, deadline=deadlines[name]))
        pending.add(future)
        future.add_done_callback(partial(_note, name, ended, pending))
    await asyncio.wait_for(asyncio.gather(*pending), 10)
    beating.cancel()
    await nothing_left(own_broker.url)
    await dispatcher.close()
    await bus.close()

    codes = {code: [name for name, (_, answer) in ended.items() if answer.status.code is code] for code in Code}
    assert set(ended) == set(deadlines)
    assert len(codes[Code.OK]) + len(codes[Code.DEADLINE_EXCEEDED]) == count, {code: len(names) for code, names in codes.items() if names}
    starts = [moment - deadlines[name] for name, moment in _starts(ledger)]
    told = [ended[name][0] - deadlines[name] - pulse.lag(deadlines[name], ended[name][0]) for name in codes[Code.DEADLINE_EXCEEDED]]
    late_starts, late_answers = [each for each in starts if each > LATE_START_S], [each for each in told if each > LATE_ANSWER_S]
    say(
        f"P18 {count} random deadlines: {len(codes[Code.OK])} answered, {len(told)} told DEADLINE_EXCEEDED, {len(starts)} begun, "
        f"{len(late_starts)} of them more than 50 ms after expiry (latest {1e3 * max(starts):.0f} ms); told after "
        f"{1e3 * sorted(told)[len(told) // 2]:.0f} ms (median), {1e3 * sorted(told)[int(len(told) * 0.99)]:.0f} ms (p99), "
        f"{1e3 * max(told):.0f} ms at most, without the up to {1e3 * pulse.worst:.0f} ms that this process did not get to run (seed {SEED})"
    )
    assert not late_starts
    assert not late_answers, f"{len(late_answers)} of {len(told)}"


class Pulse:
    """How late this process' own event loop is: what a machine with too much to do adds to every answer."""

    def __init__(self) -> None:
        self._beats: list[tuple[float, float]] = []  # Unix seconds, seconds late

    async def beat(self) -> None:
        while True:
            due = time.time() + PULSE_S
            await asyncio.sleep(PULSE_S)
            self._beats.append((time.time(), time.time() - due))

    def lag(self, start: float, end: float) -> float:
        """The longest that was seen between two Unix times."""
        first = bisect_left(self._beats, (start, 0.0))
        last = bisect_left(self._beats, (end, 0.0))
        return max((late for _, late in self._beats[first : last + 1]), default=0.0)

    @property
    def worst(self) -> float:
        return max(late for _, late in self._beats)


def _note(
    name: str, ended: dict[str, tuple[float, Envelope]], pending: set[asyncio.Future[Envelope]], done: asyncio.Future[Envelope]
) -> None:
    pending.discard(done)
    ended[name] = time.time(), done.result()


def _starts(ledger: Path) -> list[tuple[str, float]]:
    """Name and Unix time of every execution that was begun."""
    lines = [line.split() for line in ledger.read_text().splitlines()]
    return [(line[4], float(line[3])) for line in lines if line[0] == "run"]
