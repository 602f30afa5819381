"""Clients whose requests are kept: they send, lose their gateway, and come back with their id. Knows the product's HTTP only."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import aiohttp
import nats

KEEP = {"x-streamflow-keep": "3600"}
LOST_S = 120.0  # a client that got nothing in all this time counts as lost


def question(name: str) -> dict[str, Any]:
    return {"data": [{"id": name, "text": name}]}


@dataclass(slots=True)
class Returning:
    """Answers by request id, as they came. `gateways`: URLs of the same flow, tried in turn."""

    gateways: Sequence[str]
    answers: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    sent: int = 0
    broken: int = 0  # connections that ended without an answer
    busy: int = 0  # refusals that say "try again"

    async def send(self, names: Iterable[str], in_flight: int) -> float:
        """Send each of `names`, which may be there several times, until it has an answer. Returns the seconds it took."""
        started = monotonic()
        todo = iter(names)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=LOST_S)) as session:
            await asyncio.gather(*(self._client(session, todo, at) for at in range(in_flight)))
        return monotonic() - started

    async def _client(self, session: aiohttp.ClientSession, todo: Iterable[str], at: int) -> None:
        for name in todo:
            await self._until_answered(session, name, at)

    async def _until_answered(self, session: aiohttp.ClientSession, name: str, at: int) -> None:
        limit = monotonic() + LOST_S
        while monotonic() < limit:
            at += 1
            self.sent += 1
            try:
                async with session.post(
                    f"{self.gateways[at % len(self.gateways)]}/run", json=question(name), headers={**KEEP, "x-request-id": name}
                ) as answer:
                    if answer.status in (429, 503):
                        self.busy += 1
                    else:
                        self.answers.setdefault(name, []).append((answer.status, _text(await answer.json())))
                        return
            except (aiohttp.ClientError, TimeoutError):
                self.broken += 1
            await asyncio.sleep(0.2)
        self.answers.setdefault(name, []).append((0, "nothing"))

    async def fetch(self, names: Sequence[str], in_flight: int) -> float:
        """Ask for the answers of requests that were sent before. Returns the seconds until all were there."""
        started = monotonic()
        todo = iter(enumerate(names))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=LOST_S)) as session:

            async def client() -> None:
                for at, name in todo:
                    found = await _result(session, self.gateways[at % len(self.gateways)], name)
                    self.answers.setdefault(name, []).append(found)

            await asyncio.gather(*(client() for _ in range(in_flight)))
        return monotonic() - started

    def check(self, names: Iterable[str], mark: str) -> None:
        """As many answers as sendings, all of them right."""
        wanted = Counter(names)
        assert {name: len(found) for name, found in self.answers.items()} == dict(wanted)
        wrong = {name: found for name, found in self.answers.items() if set(found) != {(200, name + mark)}}
        assert not wrong, f"{len(wrong)} of {len(wanted)} got something else, such as {list(wrong.items())[:3]}"


async def _result(session: aiohttp.ClientSession, url: str, name: str) -> tuple[int, str]:
    limit = monotonic() + LOST_S
    while monotonic() < limit:
        async with session.get(f"{url}/results/{name}") as answer:
            if answer.status != 202:
                return answer.status, _text(await answer.json())
        await asyncio.sleep(0.5)
    return 202, "for ever"


def _text(answer: dict[str, Any]) -> str:
    return str(answer["data"][0]["text"] if answer.get("data") else answer.get("detail"))


async def recorded(broker_url: str, flow: str) -> Counter[str]:
    """How many outcomes are stored under each name."""
    client = await nats.connect(broker_url)
    try:
        found: Counter[str] = Counter()
        stream = client.jetstream()
        info = await stream.stream_info(f"sf_{flow}_results", subjects_filter=f"sf.{flow}.result.online.>")
        found.update(info.state.subjects or {})
        return found
    finally:
        await client.close()
