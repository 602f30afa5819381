"""A flow at 70 % of what it can do for a long time: `make soak` (30 minutes; SOAK_S sets the seconds). Nothing may grow."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import cycle
from time import monotonic

import psutil
import pytest

from streamflow.workers import companion
from tests.e2e.checker import nothing_left, stream_states
from tests.e2e.programs import Programs
from tests.e2e.streams import WAYS, Served, executor, read, serve

from .traffic import MIB, Traffic, listening, quantile, traffic

SECONDS = float(os.environ.get("SOAK_S", "60"))
LONG_S = 1500.0  # from here on a slope is a figure, below it is noise
LOAD = 0.7
PERIODS = 120  # samples of a run
WARM = 1 / 3  # of the run
BROKER = "broker"
BROKER_GROWTH = 1.05
PARTS = 24  # of a run, the least memory in each of which is printed
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 300)]


@dataclass
class History:
    """Of one process: seconds, and what it had then."""

    name: str
    seconds: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def sample(self, process: psutil.Process, now: float) -> None:
        with process.oneshot():
            self.rss.append(int(process.memory_info().rss))
            self.files.append(process.num_fds())
            self.threads.append(process.num_threads())
        self.seconds.append(now)

    @property
    def slope_mib_h(self) -> float:
        """Least squares over what came after the warm-up."""
        start = int(len(self.seconds) * WARM)
        times, sizes = self.seconds[start:], self.rss[start:]
        middle, mean = sum(times) / len(times), sum(sizes) / len(sizes)
        spread = sum((each - middle) ** 2 for each in times)
        return sum((at - middle) * (each - mean) for at, each in zip(times, sizes, strict=True)) / spread * 3600 / MIB

    def grown(self) -> list[str]:
        """What the last third has more of than the one before it, beyond the coming and going of single connections."""
        return [
            f"{self.name}: {what} from {max(before)} to {max(after)}"
            for what, (before, after) in (("descriptors", _thirds(self.files)), ("threads", _thirds(self.threads)))
            if min(after) > max(before)
        ]

    @property
    def peaks(self) -> tuple[int, int]:
        """Of the second third and of the last, bytes."""
        before, after = _thirds(self.rss)
        return max(before), max(after)

    def __str__(self) -> str:
        part = -(-len(self.rss) // PARTS)
        sizes = " ".join(f"{min(self.rss[at : at + part]) / MIB:.1f}" for at in range(0, len(self.rss), part))
        return f"{self.name}: {self.slope_mib_h:+.1f} MiB/h, {self.files[-1]} descriptors, {self.threads[-1]} threads; MiB: {sizes}"


def _thirds(values: list[int]) -> tuple[list[int], list[int]]:
    """The second and the last of a run."""
    third = len(values) // 3
    return values[third : 2 * third], values[2 * third :]


async def test_nothing_grows(programs: Programs, say: Callable[[str], None]) -> None:
    """HTTP requests at 70 % of capacity, and streams over every protocol, every other one left early.

    The broker's memory is a saw of some minutes: what it knows duplicates by is let go every two minutes, and Go collects garbage when
    there is four times as much as is in use (`GOGC=400`). So the heights of its teeth are compared.
    """
    served = serve(programs, "soak", executor("one", "Mark", replicas=2))
    url, end = f"http://{served.addresses['http']}/say", monotonic() + SECONDS
    async with traffic(url, b'{"data": [{"text": "x"}], "parameters": {"n": 1}}') as clients:
        await clients.closed(16, 2.0)
        capacity = await clients.throughput(16, 5.0)
        family = {process.pid: History(_name_of(process, served)) for process in served.program.family()}
        consumers: list[int] = []
        watching = asyncio.create_task(_watch(family, served, consumers, end))
        streaming = asyncio.create_task(_streams(served, end))
        worst_s, failed = await _drive(clients, capacity * LOAD, end)
        await asyncio.gather(watching, streaming)
    await nothing_left(served.broker_url)
    lines = [str(history) for history in family.values()]
    say(
        f"soak of {SECONDS:g} s at {capacity * LOAD:.0f} requests/s ({LOAD:.0%} of {capacity:.0f}/s): p99 "
        f"{1e3 * worst_s:.0f} ms in the worst "
        f"period, failed by status (0 = connection, -1 = not sent): {dict(failed)}, {consumers[-1]} consumers\n  " + "\n  ".join(lines)
    )
    assert not failed
    assert consumers[-1] <= consumers[len(consumers) // 3], f"consumers: {consumers}"
    grown = [line for history in family.values() for line in history.grown()]
    assert not grown, grown
    broker = next(history for history in family.values() if history.name == BROKER)
    steep = [str(history) for history in family.values() if history is not broker and history.slope_mib_h > 1.0]
    assert not steep or SECONDS < LONG_S, steep
    before, after = broker.peaks
    assert after < BROKER_GROWTH * before or SECONDS < LONG_S, str(broker)


async def _drive(clients: Traffic, rate: float, end: float) -> tuple[float, Counter[int]]:
    """Requests at `rate` until `end`: the worst p99 of all periods, in seconds, and how many failed with which status."""
    worst_s, failed = 0.0, Counter[int]()
    while (left := end - monotonic()) > 0:
        answers = await clients.at_rate(rate, min(left, SECONDS / PERIODS + 1.0))
        if answers:
            worst_s = max(worst_s, quantile(answers, 0.99))
            failed.update(answer.status for answer in answers if answer.status != 200)
    return worst_s, failed


async def _streams(served: Served, end: float) -> None:
    for number, (name, way) in enumerate(cycle(WAYS.items())):
        if monotonic() >= end:
            return
        word = f"soak{number}"
        if number % 2:
            async with aclosing(way(served.addresses, "/say", word, n=100_000)) as docs:
                assert (await anext(docs))["number"] == 0
        else:
            whole = await read(way, served, "/say", word, n=20)
            assert [doc["number"] for doc in whole] == list(range(20)), name
        await asyncio.sleep(0.25)


async def _watch(family: dict[int, History], served: Served, consumers: list[int], end: float) -> None:
    began = monotonic()
    while monotonic() < end:
        for pid, history in family.items():
            history.sample(psutil.Process(pid), monotonic() - began)
        states = await stream_states(served.broker_url)
        consumers.append(sum(state["consumers"] for state in states.values()))
        await asyncio.sleep(SECONDS / PERIODS)


def _name_of(process: psutil.Process, served: Served) -> str:
    if "nats" in process.name():
        return BROKER
    if process.pid == served.program.pid:
        return "supervisor"
    if process.name() == companion.NAME:
        return f"companion {process.pid}"
    kind = "gateway" if process.pid == listening(served.program).pid else "worker"
    return f"{kind} {process.pid}"
