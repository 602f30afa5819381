"""Requests over HTTP at a set rate or from a set number of clients, with the time that each took; and what processes use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic, perf_counter, time

import psutil

from load.drivers.http_client import BadAnswer, Connection
from tests.e2e.programs import Program

BODY = json.dumps({"data": [{"text": "x"}]}).encode()
TICK_S = 0.002
IDLE_S = 30.0
UNSENT = -1  # the status of an arrival that found `most` requests open
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """`status`: 0 = none, the connection broke; or `UNSENT`. `seconds` from its time in the timetable (open loop) or from sending it
    (closed loop). Of a refusal also when it was sent and had (Unix s), and its body."""

    at: float
    seconds: float
    status: int
    sent: float = 0.0
    had: float = 0.0
    body: bytes = b""

    def stages(self) -> tuple[float, float, float, float]:
        """Of a refusal by a gateway on this machine, seconds: until this client sent it, until the gateway had read it, until it had an
        answer, until this client had that."""
        route = next(route for route in json.loads(self.body)["routes"] if route["executor"] == "gateway")
        began, ended = (datetime.fromisoformat(route[name]).timestamp() for name in ("startTime", "endTime"))
        return self.seconds - (self.had - self.sent), began - self.sent, ended - began, self.had - ended


@dataclass(slots=True)
class Traffic:
    """Not more than `most` requests are open; an arrival above that counts as one without an answer."""

    url: str
    body: bytes = BODY
    most: int = 2000
    _idle: list[tuple[float, Connection]] = field(default_factory=list)  # with the time (monotonic s) of their last use

    async def at_rate(self, rate: float, seconds: float) -> list[Answer]:
        """`rate` requests per second, whether or not answers come back."""
        start, count = perf_counter(), int(rate * seconds)
        found: list[Answer] = []
        tasks: set[asyncio.Task[None]] = set()
        for number in range(count):
            due = start + number / rate
            early = due - perf_counter()
            await asyncio.sleep(early if early > TICK_S else 0)  # also when late: answers are read in between
            if len(tasks) >= self.most:
                found.append(Answer(monotonic(), 0.0, UNSENT))
                continue
            task = asyncio.create_task(self._ask(due, found))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)
        return found

    async def closed(self, clients: int, seconds: float) -> list[Answer]:
        """`clients` that each send the next request when they have the answer."""
        end = perf_counter() + seconds
        found: list[Answer] = []

        async def client() -> None:
            while perf_counter() < end:
                await self._ask(perf_counter(), found)

        await asyncio.gather(*(client() for _ in range(clients)))
        return found

    async def throughput(self, clients: int, seconds: float) -> float:
        """Good answers per second of `closed`, within those seconds."""
        end = monotonic() + seconds
        return sum(answer.at <= end for answer in good(await self.closed(clients, seconds))) / seconds

    async def _ask(self, since: float, found: list[Answer]) -> None:
        status, body, sent = 0, b"", time()
        try:
            status, body = await self.post(self.body)
        except (OSError, BadAnswer):
            status = 0
        taken = perf_counter() - since
        found.append(Answer(monotonic(), taken, status, sent, time(), body) if status == 429 else Answer(monotonic(), taken, status))

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of one answer. Raises `OSError`, `BadAnswer`."""
        connection = await self._connection()
        try:
            return await connection.post(body)
        finally:
            self._idle.append((monotonic(), connection))

    async def _connection(self) -> Connection:
        """The one that was used last. Those that were not for long are closed: the server may be about to do so."""
        while self._idle and monotonic() - self._idle[0][0] > IDLE_S:
            await self._idle.pop(0)[1].close()
        return self._idle.pop()[1] if self._idle else Connection(self.url)

    async def close(self) -> None:
        for _, connection in self._idle:
            await connection.close()


@asynccontextmanager
async def traffic(url: str, body: bytes = BODY, most: int = 2000) -> AsyncIterator[Traffic]:
    made = Traffic(url, body, most)
    try:
        yield made
    finally:
        await made.close()


def good(answers: Iterable[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.status == 200]


def quantile(answers: Iterable[Answer], part: float) -> float:
    """Seconds within which `part` of the answers came."""
    seconds = sorted(answer.seconds for answer in answers)
    assert seconds, "no answers"
    return seconds[min(len(seconds) - 1, int(part * len(seconds)))]


def rss(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def cpu_s(program: Program) -> float:
    """CPU seconds that the processes of a flow have used so far."""
    return sum(used.user + used.system for used in (process.cpu_times() for process in program.family()))


def listening(program: Program) -> psutil.Process:
    """The gateway among the processes of a flow: it serves the port that the supervisor holds."""
    children = [process for process in program.family() if process.pid != program.pid and "nats" not in process.name()]
    for process in children:
        if any(connection.status == psutil.CONN_LISTEN for connection in process.net_connections("tcp")):
            return process
    raise AssertionError("no process of the flow listens")


@asynccontextmanager
async def memory_of(pid: int, period_s: float = 0.5) -> AsyncIterator[list[int]]:
    """The resident bytes of a process while the block runs, one figure per period."""
    found = [rss(pid)]

    async def watch() -> None:
        while True:
            await asyncio.sleep(period_s)
            found.append(rss(pid))

    task = asyncio.create_task(watch())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.wait([task])


def windows(answers: Iterable[Answer], start: float, width_s: float) -> Iterator[tuple[float, list[Answer]]]:
    """Answers by when they came, in seconds since `start`."""
    by_window: dict[int, list[Answer]] = {}
    for answer in answers:
        by_window.setdefault(int((answer.at - start) / width_s), []).append(answer)
    for number in sorted(by_window):
        yield number * width_s, by_window[number]
