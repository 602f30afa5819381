"""What may happen to a running flow, at any size: `tests/e2e` runs these small, `tests/chaos` in full. Each checks itself and returns its figures."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from streamflow.broker.server import EmbeddedBroker, free_port
from tests.e2e.checker import Done, Load, Seen, check, nothing_left, stream_states
from tests.e2e.programs import Program, Programs, flow_file, step

MARK = "+"
READY = r"(?m)^ready"


@dataclass(frozen=True, slots=True)
class Figures:
    """One line for people."""

    what: str
    requests: int
    seconds: float
    kills: int
    executions: int
    redelivered: int
    slowest_s: float
    more: str = ""

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.requests} requests in {self.seconds:.1f} s, {self.kills} kills, {self.executions} executions of which "
            f"{self.redelivered} redelivered, slowest answer {self.slowest_s:.2f} s{self.more}"
        )


def marked(name: str) -> str:
    return name + MARK


def names(number: int) -> list[str]:
    return [f"r{at}" for at in range(number)]


@asynccontextmanager
async def every(period_s: float, act: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """`act()` again and again while the block runs; what it raises ends the test."""

    async def again() -> None:
        while True:
            await asyncio.sleep(period_s)
            await act()

    task = asyncio.create_task(again())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


class WorkerKiller:
    """Kills one of the workers that are alive, by chance; keeps at least `spare` of them."""

    def __init__(self, ledger: Path, seed: int, spare: int = 0) -> None:
        self._ledger = ledger
        self._chance = random.Random(seed)
        self._spare = spare
        self.kills = 0

    async def __call__(self) -> None:
        alive = [pid for pid in Done.read(self._ledger).starts if is_alive(pid)]
        if len(alive) > self._spare:
            psutil.Process(self._chance.choice(alive)).kill()
            self.kills += 1


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def workers_killed(programs: Programs, requests: int, every_s: float, seed: int, in_flight: int = 64) -> Figures:
    """Three replicas under `streamflow flow`, one killed every `every_s` seconds: every request is answered once and right."""
    ledger = programs.folder / "ledger"
    file = flow_file(programs.folder, "kills", [step("work", replicas=3, ledger=str(ledger), mark=MARK, pause_s=0.002)])
    program, addresses = programs.flow(file)
    killer = WorkerKiller(ledger, seed)
    load = Load(f"http://{addresses['http']}/run", in_flight)
    async with every(every_s, killer):
        seconds = await load.run(names(requests))
    return await finish("workers killed", load, ledger, broker_of(program), requests, seconds, killer.kills)


def broker_of(program: Program) -> str:
    """URL of the embedded broker of a served flow."""
    return program.wait_for(r'"broker": "(nats://[^"]+)"')[1]


async def finish(
    what: str, load: Load, ledger: Path, broker_url: str, requests: int, seconds: float, kills: int, more: str = "", **rules: frozenset[int]
) -> Figures:
    """Compare the ledgers, wait until the queues are empty, and put the figures together."""
    await nothing_left(broker_url)
    done = Done.read(ledger)
    check(names(requests), load.seen, done, marked, **rules)
    slowest_s = max(one.seconds for one in load.seen)
    return Figures(what, requests, seconds, kills, sum(map(len, done.attempts.values())), done.redelivered, slowest_s, more)


class Parts:
    """A flow of one executor as separate command lines, on a broker of the test's own."""

    def __init__(self, programs: Programs, broker: EmbeddedBroker, **options: object) -> None:
        self._programs = programs
        self.broker = broker
        self.ledger = programs.folder / "ledger"
        self._options = {"mark": MARK, "ledger": str(self.ledger), **options}
        self._file = flow_file(programs.folder, "parts", [step("work")])

    def gateway(self) -> tuple[Program, str]:
        """A gateway that serves, and the URL to send to."""
        port = free_port()
        program = self._programs.gateway(self._file, self.broker.url, port)
        program.wait_for(READY)
        return program, f"http://127.0.0.1:{port}/run"

    def worker(self) -> Program:
        return self._programs.worker(self.broker.url, "parts", "work", **self._options)

    def workers(self, number: int) -> list[Program]:
        started = [self.worker() for _ in range(number)]
        for program in started:
            program.wait_for(READY)
        return started


async def ready(program: Program) -> None:
    await asyncio.to_thread(program.wait_for, READY)


async def workers_drained(programs: Programs, broker: EmbeddedBroker, requests: int, every_s: float) -> Figures:
    """SIGTERM to one of three workers again and again, a new one in its place: no request fails or runs twice."""
    parts = Parts(programs, broker, pause_s=0.002)
    _, url = parts.gateway()
    workers = parts.workers(3)
    ended: list[int] = []

    async def drain_oldest() -> None:
        workers.append(parts.worker())
        await ready(workers[-1])
        oldest = workers.pop(0)
        ended.append(await asyncio.to_thread(oldest.stop))

    load = Load(url)
    async with every(every_s, drain_oldest):
        seconds = await load.run(names(requests))
    assert ended, "no worker was stopped while the load ran"
    assert set(ended) == {0}, f"exit codes {ended}"
    figures = await finish("workers drained", load, parts.ledger, broker.url, requests, seconds, len(ended))
    assert figures.executions == requests, f"a drained worker left work behind: {figures}"
    return figures


async def worker_added(programs: Programs, broker: EmbeddedBroker) -> Figures:
    """A second worker takes its share of a running load within 2 s of being ready."""
    parts = Parts(programs, broker, pause_s=0.01)
    _, url = parts.gateway()
    parts.workers(1)
    stop = asyncio.Event()
    sent: list[str] = []

    def endless() -> Iterator[str]:
        while not stop.is_set():
            sent.append(f"r{len(sent)}")
            yield sent[-1]

    load = Load(url, 32)
    running = asyncio.create_task(load.run(endless()))
    added = parts.worker()
    await ready(added)
    since = time.time()
    await asyncio.sleep(2.5)
    stop.set()
    seconds = await running
    done = Done.read(parts.ledger)
    mine = [moment - since for moment in done.runs.get(added.pid, [])]
    late = [moment for runs in done.runs.values() for moment in runs if moment > since + 1.5]
    share = sum(moment > 1.5 for moment in mine) / len(late)
    assert mine and min(mine) < 2.0, "the new worker got nothing within 2 s"
    assert 0.3 < share < 0.7, f"the new worker runs {share:.0%}"
    more = f", the second worker's first request {min(mine):.2f} s after it was ready, then {share:.0%} of them"
    return await finish("worker added", load, parts.ledger, broker.url, len(sent), seconds, 0, more)


async def gateway_killed(programs: Programs, broker: EmbeddedBroker, requests: int) -> Figures:
    """The gateway dies with all requests accepted and few done: the workers finish them, a second gateway serves on."""
    parts = Parts(programs, broker, pause_s=0.01)
    first, url = parts.gateway()
    parts.workers(2)
    lost = Load(url, in_flight=requests)
    sending = asyncio.create_task(lost.run(names(requests)))
    await accepted(broker.url, parts.ledger, requests)
    at_kill = len(Done.read(parts.ledger).attempts)
    first.kill()
    await sending
    assert at_kill < requests, "too late: all was done before the gateway died"
    await nothing_left(broker.url)
    done = Done.read(parts.ledger)
    assert set(done.attempts) == set(names(requests)), f"{requests - len(done.attempts)} accepted requests were never executed"
    _, url = parts.gateway()
    load = Load(url)
    later = [f"later{at}" for at in range(requests)]
    seconds = await load.run(later)
    await nothing_left(broker.url)
    done = Done.read(parts.ledger)
    check(later, load.seen, done, marked)
    slowest_s = max(one.seconds for one in load.seen)
    executions = sum(map(len, done.attempts.values()))
    more = f", {requests - at_kill} of {requests} were finished without a gateway"
    return Figures("gateway killed", len(later), seconds, 1, executions, done.redelivered, slowest_s, more)


async def accepted(broker_url: str, ledger: Path, requests: int) -> None:
    """Wait until `requests` are stored or done."""
    limit = time.monotonic() + 15
    while True:
        states = await stream_states(broker_url)
        # Done ones first, else one that is done in between would be missed.
        found = len(Done.read(ledger).attempts)
        found += sum(state["messages"] for name, state in states.items() if name.endswith("work"))
        if found >= requests:
            return
        assert time.monotonic() < limit, f"{found} of {requests} were accepted"
        await asyncio.sleep(0.02)


async def broker_killed(programs: Programs, broker: EmbeddedBroker, requests: int, times: int, every_s: float, seed: int) -> Figures:
    """The broker dies by kill -9 and comes back after up to a second: every request is answered, service resumes within 2 s."""
    parts = Parts(programs, broker, pause_s=0.002)
    _, url = parts.gateway()
    parts.workers(2)
    chance = random.Random(seed)
    back: list[float] = []
    opened = 0.0

    def answered(_seen: Seen) -> None:
        nonlocal opened
        if opened:
            back.append(time.monotonic() - opened)
            opened = 0.0

    async def restart() -> None:
        nonlocal opened
        if len(back) == times or opened:
            return
        broker.kill()
        await asyncio.sleep(chance.uniform(0.1, 1.0))
        await asyncio.to_thread(broker.start)
        opened = time.monotonic()

    load = Load(url, on_answer=answered)
    async with every(every_s, restart):
        seconds = await load.run(names(requests))
    assert len(back) == times, f"{len(back)} restarts in {seconds:.1f} s: the load was too short for {times}"
    more = f", service back {', '.join(f'{each:.2f}' for each in back)} s after the port opened"
    figures = await finish("broker killed", load, parts.ledger, broker.url, requests, seconds, times, more)
    assert max(back) <= 2.0, str(figures)
    return figures
