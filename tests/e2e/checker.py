"""Three ledgers compared: what the clients saw, what the executors did, what is left in the queues. Knows nothing of the product's code."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import nats


@dataclass(frozen=True, slots=True)
class Seen:
    """What the client got for one request. `status` 0 = no answer at all."""

    request: str
    status: int
    text: str = ""
    detail: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Load:
    """Requests of one document each, over HTTP, a bounded number at a time. One request is sent once: nothing here tries again."""

    url: str
    in_flight: int = 64
    timeout_s: float = 60.0
    seen: list[Seen] = field(default_factory=list)
    on_answer: Callable[[Seen], None] | None = None
    headers: dict[str, str] = field(default_factory=dict)

    async def run(self, names: Iterable[str]) -> float:
        """Send one request per name. Returns the seconds it took."""
        started = monotonic()
        todo = iter(names)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=self.timeout_s)) as session:
            await asyncio.gather(*(self._client(session, todo) for _ in range(self.in_flight)))
        return monotonic() - started

    async def _client(self, session: aiohttp.ClientSession, todo: Iterable[str]) -> None:
        for name in todo:
            seen = await self._ask(session, name)
            self.seen.append(seen)
            if self.on_answer is not None:
                self.on_answer(seen)

    async def _ask(self, session: aiohttp.ClientSession, name: str) -> Seen:
        started = monotonic()
        try:
            async with session.post(self.url, json={"data": [{"id": name, "text": name}]}, headers=self.headers) as response:
                return _seen(name, response.status, await response.read(), monotonic() - started)
        except (aiohttp.ClientError, TimeoutError) as error:
            return Seen(name, 0, detail=repr(error), seconds=monotonic() - started)


def _seen(name: str, status: int, body: bytes, seconds: float) -> Seen:
    answer = json.loads(body)
    documents = answer.get("data") or []
    if status == 200 and (len(documents) != 1 or documents[0]["id"] != name):
        return Seen(name, -1, detail=f"answer of another request: {documents!r}", seconds=seconds)
    return Seen(name, status, documents[0]["text"] if documents else "", str(answer.get("detail", "")), seconds)


@dataclass(slots=True)
class Done:
    """What the executors wrote down: attempts by request, and the processes there were."""

    attempts: dict[str, list[int]] = field(default_factory=dict)
    runs: dict[int, list[float]] = field(default_factory=dict)  # Unix seconds of each execution, by pid
    starts: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, ledger: Path) -> Done:
        done = cls()
        for line in ledger.read_text().splitlines() if ledger.exists() else ():
            kind, pid, *rest = line.split(" ")
            if kind == "start":
                done.starts.append(int(pid))
            else:
                attempt, moment, request = rest
                done.attempts.setdefault(request, []).append(int(attempt))
                done.runs.setdefault(int(pid), []).append(float(moment))
        return done

    @property
    def redelivered(self) -> int:
        return sum(attempt > 1 for attempts in self.attempts.values() for attempt in attempts)

    @property
    def repeated(self) -> int:
        """Executions beyond the first of each request."""
        return sum(len(attempts) - 1 for attempts in self.attempts.values())


def check(names: list[str], seen: list[Seen], done: Done, text_of: Callable[[str], str], *, refused: frozenset[int] = frozenset()) -> None:
    """Each request answered once and right, and executed. `refused`: HTTP statuses that are an honest answer too."""
    answers = Counter(one.request for one in seen)
    assert answers == Counter(names), f"not answered once: {list((Counter(names) - answers) + (answers - Counter(names)))[:5]}"
    failed = [one for one in seen if one.status != 200 and one.status not in refused]
    assert not failed, f"{len(failed)} of {len(seen)} requests failed, such as {failed[:3]}"
    answered = [one for one in seen if one.status == 200]
    wrong = [one for one in answered if one.text != text_of(one.request)]
    assert not wrong, f"{len(wrong)} wrong answers, such as {wrong[:3]}"
    invented = [one.request for one in answered if one.request not in done.attempts]
    assert not invented, f"{len(invented)} answers that nobody worked out, such as {invented[:3]}"


async def stream_states(broker_url: str) -> dict[str, dict[str, Any]]:
    """Every JetStream stream with its state, and what its consumers still hold."""
    client = await nats.connect(broker_url)
    try:
        found: dict[str, dict[str, Any]] = {}
        for name in await _names(client, "STREAM.NAMES", "streams"):
            info = await _api(client, f"STREAM.INFO.{name}")
            consumers = [
                await _api(client, f"CONSUMER.INFO.{name}.{one}") for one in await _names(client, f"CONSUMER.NAMES.{name}", "consumers")
            ]
            unsettled = sum(one["num_ack_pending"] + one["num_pending"] for one in consumers)
            found[name] = {
                "messages": info["state"]["messages"],
                "config": info["config"],
                "unsettled": unsettled,
                "consumers": len(consumers),
            }
        return found
    finally:
        await client.close()


@dataclass(frozen=True, slots=True)
class Recorded:
    """The stored results of one job: how often each input has one, and how many of them are failures."""

    times: Counter[str]
    failures: int

    def check_count(self, number: int) -> None:
        """One for each of `number` requests, whose names the gateway chose."""
        repeated = [name for name, times in self.times.items() if times != 1]
        assert not repeated, f"{len(repeated)} results were recorded more than once, such as {repeated[:3]}"
        assert len(self.times) == number, f"{len(self.times)} results of {number} requests"
        assert not self.failures, f"{self.failures} failures were recorded"

    def check(self, names: Iterable[str]) -> None:
        """Exactly one for each of `names`, and no failure."""
        wanted = Counter(names)
        missing, extra = wanted - self.times, self.times - wanted
        assert not missing, f"{missing.total()} results are missing, such as {list(missing)[:5]}"
        assert not extra, f"{extra.total()} results too many, such as {list(extra)[:5]}"
        assert not self.failures, f"{self.failures} failures were recorded"


async def recorded(broker_url: str, job: str) -> Recorded:
    """What the results streams hold of `job`, by the last token of the subject (its number)."""
    client = await nats.connect(broker_url)
    times: Counter[str] = Counter()
    failures = 0
    try:
        for name in await _names(client, "STREAM.NAMES", "streams"):
            if name.endswith("_results"):
                async for subject, count in _subjects(client, name, job):
                    if ".failed." in subject:
                        failures += count
                    else:
                        times[subject.rsplit(".", 1)[1]] += count
    finally:
        await client.close()
    return Recorded(times, failures)


async def _subjects(client: Any, stream: str, job: str) -> AsyncIterator[tuple[str, int]]:
    """The subjects of `job` in a stream, each with its number of messages, page by page (STREAM.INFO, `subjects_filter`)."""
    offset, total = 0, 1
    while offset < total:
        question = json.dumps({"subjects_filter": f"sf.*.*.{job}.*", "offset": offset}).encode()
        answer = json.loads((await client.request(f"$JS.API.STREAM.INFO.{stream}", question, timeout=10)).data)
        found: dict[str, int] = answer["state"].get("subjects") or {}
        total = int(answer.get("total") or len(found))
        for subject, count in found.items():
            yield subject, count
        offset += max(1, len(found))


async def _names(client: Any, subject: str, key: str) -> list[str]:
    return list((await _api(client, subject)).get(key) or ())


async def _api(client: Any, subject: str) -> dict[str, Any]:
    answer = await client.request(f"$JS.API.{subject}", b"", timeout=5)
    found: dict[str, Any] = json.loads(answer.data)
    assert "error" not in found, found
    return found


KEPT = ("_results", "_jobs")  # what jobs leave behind is no work


async def nothing_left(broker_url: str, timeout_s: float = 15.0, *, forsaken: int = 0) -> None:
    """Every queue of work is empty, every delivery settled, nothing was quarantined. `forsaken`: so many parts may wait to expire in each
    place, whose workers died before they could remove them."""
    limit = monotonic() + timeout_s
    while True:
        states = await stream_states(broker_url)
        queues = {name: state for name, state in states.items() if not name.startswith("KV_") and not name.endswith(KEPT)}
        spare = {name: forsaken if name.endswith("_part") else 0 for name in queues}
        left = {name: state for name, state in queues.items() if state["messages"] > spare[name] or state["unsettled"]}
        if not left:
            return
        assert monotonic() < limit, (
            f"left in the queues: { {name: (state['messages'], state['unsettled']) for name, state in left.items()} }"
        )
        await asyncio.sleep(0.1)
