"""What may happen to a running flow, at any size: `tests/e2e` runs it small, `tests/chaos` in full. Each scenario checks itself."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from streamflow.broker.server import EmbeddedBroker, free_port
from tests.e2e.checker import Done, Load, Seen, check, nothing_left, stream_states
from tests.e2e.programs import Program, Programs, broker_of, flow_file, step

from .recorded import JobBeside

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


@dataclass
class Until:
    """Names of requests: `least` of them, and more until `enough()`, so that no test depends on how fast the machine is."""

    least: int
    enough: Callable[[], bool]
    limit_s: float = 240.0
    sent: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[str]:
        limit = time.monotonic() + self.limit_s
        while len(self.sent) < self.least or not self.enough():
            assert time.monotonic() < limit, f"{len(self.sent)} requests in {self.limit_s:g} s, and what should have happened has not"
            self.sent.append(f"r{len(self.sent)}")
            yield self.sent[-1]


@asynccontextmanager
async def every(period_s: float, act: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """`act()` again and again while the block runs; what it raises ends the test."""

    async def again() -> None:
        while True:
            await asyncio.sleep(period_s)
            await act()

    async with beside(again()):
        yield


@asynccontextmanager
async def at_random(least_s: float, most_s: float, chance: random.Random, act: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """`every`, with a time between `least_s` and `most_s` before each."""

    async def again() -> None:
        while True:
            await asyncio.sleep(chance.uniform(least_s, most_s))
            await act()

    async with beside(again()):
        yield


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """`work` until the block ends; what it raises ends the test."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


class WorkerKiller:
    """Kills one of the workers that are alive, by chance; `spare` of them are left alone.

    Without a spare one the supervisor's back-off ends in a flow whose only worker is killed as soon as it is there.
    """

    def __init__(self, ledger: Path, seed: int, spare: int) -> None:
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
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def workers_killed(programs: Programs, requests: int, every_s: float, seed: int) -> Figures:
    """Three replicas under `streamflow flow`, one killed every `every_s` seconds: every request is answered once and right."""
    ledger = programs.folder / "ledger"
    file = flow_file(programs.folder, "kills", [step("work", replicas=3, ledger=str(ledger), mark=MARK, pause_s=0.002)])
    program, addresses = programs.flow(file)
    killer = WorkerKiller(ledger, seed, spare=1)
    load = Load(f"http://{addresses['http']}/run", 64)
    wanted = Until(requests, lambda: killer.kills >= 4)
    async with every(every_s, killer):
        seconds = await load.run(wanted)
    return await finish("workers killed", load, ledger, broker_of(program), wanted.sent, seconds, killer.kills)


async def finish(
    what: str,
    load: Load,
    ledger: Path,
    broker_url: str,
    sent: list[str],
    seconds: float,
    kills: int,
    more: str = "",
    **rules: frozenset[int],
) -> Figures:
    """Compare the ledgers, wait until the queues are empty, and put the figures together."""
    await nothing_left(broker_url)
    done = Done.read(ledger)
    check(sent, load.seen, done, marked, **rules)
    slowest_s = max(one.seconds for one in load.seen)
    return Figures(what, len(sent), seconds, kills, sum(map(len, done.attempts.values())), done.redelivered, slowest_s, more)


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


async def workers_drained(
    programs: Programs, broker: EmbeddedBroker, requests: int, times: int, every_s: float, limit_s: float = 240.0
) -> Figures:
    """SIGTERM to one worker again and again while two or more others go on: no request fails, none runs twice."""
    parts = Parts(programs, broker, pause_s=0.002)
    _, url = parts.gateway()
    workers = parts.workers(min(times, 4) + 1)
    ended: list[int] = []

    async def drain_oldest() -> None:
        if len(ended) == times:
            return
        if len(workers) < 3 and len(ended) + 1 < times:
            workers.append(parts.worker())
            await ready(workers[-1])
        ended.append(await asyncio.to_thread(workers.pop(0).stop))

    load = Load(url)
    wanted = Until(requests, lambda: len(ended) == times, limit_s)
    async with every(every_s, drain_oldest):
        seconds = await load.run(wanted)
    assert set(ended) == {0}, f"exit codes {ended}"
    figures = await finish("workers drained", load, parts.ledger, broker.url, wanted.sent, seconds, times)
    assert figures.executions == figures.requests, f"a drained worker left work behind: {figures}"
    return figures


async def worker_added(programs: Programs, broker: EmbeddedBroker) -> Figures:
    """A second worker takes its share of a running load within 2 s of being ready."""
    parts = Parts(programs, broker, pause_s=0.01)
    _, url = parts.gateway()
    parts.workers(1)
    stop = asyncio.Event()
    wanted = Until(0, stop.is_set)
    load = Load(url, 32)
    running = asyncio.create_task(load.run(wanted))
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
    return await finish("worker added", load, parts.ledger, broker.url, wanted.sent, seconds, 0, more)


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


async def broker_killed(
    programs: Programs,
    broker: EmbeddedBroker,
    requests: int,
    times: int,
    every_s: float,
    seed: int,
    *,
    job_inputs: int = 0,
    limit_s: float = 240.0,
) -> Figures:
    """The broker dies by kill -9 and comes back after up to a second: every request is answered, service resumes within 2 s. Of
    `job_inputs` that run beside the requests each has one recorded result."""
    parts = Parts(programs, broker, pause_s=0.002)
    _, url = parts.gateway()
    parts.workers(2)
    job = await JobBeside.submit(broker.url, "parts", job_inputs) if job_inputs else None
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
    wanted = Until(requests, lambda: len(back) == times, limit_s)
    async with every(every_s, restart):
        seconds = await load.run(wanted)
    more = f", service back {max(back):.2f} s (longest of {len(back)}) after the port opened"
    if job is not None:
        more += f", {await job.all_recorded(parts.ledger)}"
    figures = await finish("broker killed", load, parts.ledger, broker.url, wanted.sent, seconds, times, more)
    assert max(back) <= 2.0, str(figures)
    return figures


async def broker_and_worker_killed(programs: Programs, broker: EmbeddedBroker, requests: int, times: int) -> Figures:
    """The broker and every worker die at the same moment: what was lost on its way is published again."""
    parts = Parts(programs, broker, pause_s=0.002)
    _, url = parts.gateway()
    workers = parts.workers(2)
    done = 0

    async def kill_all() -> None:
        nonlocal done
        if done == times:
            return
        for program in workers:
            program.kill()
        broker.kill()
        await asyncio.to_thread(broker.start)
        workers[:] = [parts.worker(), parts.worker()]
        done += 1

    load = Load(url)
    wanted = Until(requests, lambda: done == times)
    async with every(1.5, kill_all):
        seconds = await load.run(wanted)
    return await finish("broker and workers killed", load, parts.ledger, broker.url, wanted.sent, seconds, 3 * times)


async def chain_killed(programs: Programs, requests: int, every_s: float, seed: int) -> Figures:
    """Kills at every hop of a chain of three executors: each answer went through all of them, in order."""
    ledgers = [programs.folder / f"ledger{at}" for at in range(3)]
    executors = [
        step(name, replicas=replicas, mark=mark, ledger=str(ledger), pause_s=0.001)
        for name, replicas, mark, ledger in zip("abc", (2, 3, 2), "123", ledgers, strict=True)
    ]
    program, addresses = programs.flow(flow_file(programs.folder, "chain", executors))
    killers = [WorkerKiller(ledger, seed + at, spare=1) for at, ledger in enumerate(ledgers)]
    chance = random.Random(seed)

    async def kill_one() -> None:
        await chance.choice(killers)()

    load = Load(f"http://{addresses['http']}/run")
    async with every(every_s, kill_one):
        seconds = await load.run(names(requests))
    await nothing_left(broker_of(program))
    done = [Done.read(ledger) for ledger in ledgers]
    for one in done:
        check(names(requests), load.seen, one, lambda name: f"{name}123")
    executions, redelivered = sum(sum(map(len, one.attempts.values())) for one in done), sum(one.redelivered for one in done)
    slowest_s = max(one.seconds for one in load.seen)
    return Figures("chain of three killed", requests, seconds, sum(one.kills for one in killers), executions, redelivered, slowest_s)


async def broker_away(programs: Programs, broker: EmbeddedBroker, requests: int, seconds: float) -> Figures:
    """The broker is gone for longer than a publish waits: who cannot be served is told so (503), what was accepted is answered."""
    parts = Parts(programs, broker, pause_s=0.002)
    _, url = parts.gateway()
    parts.workers(2)
    back = asyncio.Event()

    async def take_away() -> None:
        if back.is_set():
            return
        broker.kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(broker.start)
        back.set()

    load = Load(url)
    wanted = Until(requests, back.is_set)
    async with every(0.5, take_away):
        took = await load.run(wanted)
    refused = [one for one in load.seen if one.status == 503]
    assert len(refused) <= 64, f"{len(refused)} refused: more than were open"
    more = f", {len(refused)} told 503"
    return await finish("broker away", load, parts.ledger, broker.url, wanted.sent, took, 1, more, refused=frozenset({503}))


async def worker_frozen(programs: Programs, broker: EmbeddedBroker, requests: int) -> Figures:
    """A worker is stopped (SIGSTOP) for longer than `ack_wait`, then goes on: its late answers harm nobody."""
    parts = Parts(programs, broker, pause_s=0.002)
    _, url = parts.gateway()
    workers = parts.workers(2)
    load = Load(url)
    sending = asyncio.create_task(load.run(names(requests)))
    await asyncio.sleep(0.5)
    workers[0].send(signal.SIGSTOP)
    seconds = await sending
    workers[0].send(signal.SIGCONT)
    figures = await finish("worker frozen", load, parts.ledger, broker.url, names(requests), seconds, 0)
    assert figures.redelivered > 0, "the frozen worker held nothing: the test shows nothing"
    return figures
