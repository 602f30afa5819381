"""HTTP load in Python: `closed` (each connection waits for its answer), `open` (constant arrival rate), `check` (right text to each)."""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from pathlib import Path

import orjson

from .figures import summary
from .http_client import BadAnswer, Connection

MAX_OPEN = 2000  # requests in flight before an open loop counts further arrivals as errors
DRAIN_S = 10.0  # how long answers are awaited after the last arrival
CHECKS, AT_ONCE = 200, 32
FAULTS = (OSError, BadAnswer)


async def closed(url: str, body: bytes, concurrency: int, seconds: float) -> dict[str, float]:
    latencies: list[float] = []
    errors = 0
    start = time.perf_counter()

    async def caller(connection: Connection) -> None:
        nonlocal errors
        while (sent := time.perf_counter()) < start + seconds:
            ok = await _ok(connection, body)
            errors += not ok
            latencies.append(time.perf_counter() - sent)
        await connection.close()

    await asyncio.gather(*(caller(Connection(url)) for _ in range(concurrency)))
    return summary(latencies, errors, time.perf_counter() - start)


async def _ok(connection: Connection, body: bytes) -> bool:
    try:
        status, _ = await connection.post(body)
    except FAULTS:
        return False
    return status == 200


class OpenLoop:
    """Sends on a fixed timetable whether or not answers come back; latency counts from the time in the timetable."""

    def __init__(self, url: str, body: bytes) -> None:
        self._url, self._body = url, body
        self._idle: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.latencies: list[float] = []
        self.lags: list[float] = []
        self.errors = 0

    async def run(self, rate: float, seconds: float) -> None:
        count = int(rate * seconds)
        pacer = threading.Thread(target=self._pace, args=(asyncio.get_running_loop(), rate, count), daemon=True)
        pacer.start()
        await asyncio.to_thread(pacer.join)
        await asyncio.sleep(0)  # lets the last arrival become a task
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=DRAIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in self._idle:
            await connection.close()

    def _pace(self, loop: asyncio.AbstractEventLoop, rate: float, count: int) -> None:
        # A thread, because time.sleep is good to some 50 us while an event loop's timers are rounded to whole milliseconds.
        start = time.perf_counter() + 0.05
        for number in range(count):
            due = start + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            loop.call_soon_threadsafe(self._arrive, due)

    def _arrive(self, due: float) -> None:
        if len(self._tasks) >= MAX_OPEN:
            self.errors += 1
            return
        task = asyncio.get_running_loop().create_task(self._send(due))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, due: float) -> None:
        connection = self._idle.pop() if self._idle else Connection(self._url)
        self.lags.append(time.perf_counter() - due)
        ok = False
        try:
            ok = await _ok(connection, self._body)
        finally:  # a request given up at the end counts with the time it had waited by then
            self.latencies.append(time.perf_counter() - due)
            self.errors += not ok
            self._idle.append(connection)


async def open_loop(url: str, body: bytes, rate: float, seconds: float) -> dict[str, float]:
    loop = OpenLoop(url, body)
    start = time.perf_counter()
    await loop.run(rate, seconds)
    lag = summary(loop.lags, 0, seconds)["p99_ms"]
    return summary(loop.latencies, loop.errors, time.perf_counter() - start) | {"lag_p99_ms": lag}


async def check(url: str, suffix: str) -> dict[str, float]:
    """200 different texts, 32 at a time. `wrong` counts answers that are not this caller's text with the suffix."""
    numbers = iter(range(CHECKS))
    wrong = 0

    async def caller(connection: Connection) -> None:
        nonlocal wrong
        for number in numbers:
            text = f"text {number} " + "x" * number
            right = await _right(connection, f"{number:032x}", text, text + suffix)
            wrong += not right  # not in one line: `wrong` would be read before the await
        await connection.close()

    await asyncio.gather(*(caller(Connection(url)) for _ in range(AT_ONCE)))
    return {"requests": CHECKS, "wrong": wrong}


async def _right(connection: Connection, key: str, text: str, expected: str) -> bool:
    try:
        status, answer = await connection.post(orjson.dumps({"data": [{"id": key, "text": text}]}))
        docs = orjson.loads(answer)["data"] if status == 200 else []
    except (*FAULTS, ValueError, KeyError, TypeError):
        return False
    return [(doc["id"], doc["text"]) for doc in docs] == [(key, expected)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("closed", "open", "check"))
    parser.add_argument("url")
    parser.add_argument("--body", type=Path)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--suffix", default="")
    given = parser.parse_args()
    print(json.dumps(asyncio.run(_chosen(given))))


async def _chosen(given: argparse.Namespace) -> dict[str, float]:
    if given.mode == "check":
        return await check(given.url, given.suffix)
    body = given.body.read_bytes()
    if given.mode == "open":
        return await open_loop(given.url, body, given.rate, given.seconds)
    return await closed(given.url, body, given.concurrency, given.seconds)


if __name__ == "__main__":
    main()
