"""What may happen to a stateful executor: replicas killed while documents are written, reads of the latest state while others write."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from docarray import DocList

from streamflow import Client
from tests.e2e.executors.vectors import DIM, Name, Summary, Vector, hash_of_ids
from tests.e2e.programs import Program, Programs, flow_file

from .scenarios import every, is_alive

VECTORS = Path(__file__).parents[1] / "e2e" / "executors" / "vectors.py"
BATCH = 100


def vectors_flow(programs: Programs, replicas: int = 3, **options: Any) -> tuple[Program, dict[str, str], Path]:
    """A served flow with one stateful executor, its addresses, and the folder in which its processes say who they are."""
    pids = programs.folder / "pids"
    pids.mkdir()
    uses = {"jtype": "Vectors", "py_modules": [str(VECTORS)], "with": {"folder": str(pids)}}
    executor = {"name": "vectors", "replicas": replicas, "stateful": True, "uses": uses, **options}
    program, addresses = programs.flow(flow_file(programs.folder, "state", [executor], ("http", "grpc")))
    return program, addresses, pids


def client_of(addresses: dict[str, str], protocol: str = "grpc") -> Any:
    return Client(host=f"{protocol}://{addresses[protocol]}", asyncio=True)


@dataclass(frozen=True, slots=True)
class Killed:
    """One line for people."""

    documents: int
    seconds: float
    kills: int
    slowest_s: float

    def __str__(self) -> str:
        return (
            f"{self.documents} documents of {DIM} floats in writes of {BATCH}, three replicas, {self.kills} kills: {self.seconds:.1f} s "
            f"({self.documents / self.seconds:.0f} documents/s), longest pause between two answers {self.slowest_s:.2f} s, "
            "all replicas equal, every document there once"
        )


class Killer:
    """Kills one of the replicas that are alive, by chance, but never the last."""

    def __init__(self, pids: Path, seed: int) -> None:
        self._pids = pids
        self._chance = random.Random(seed)
        self.kills = 0

    def alive(self) -> list[int]:
        return sorted(pid for pid in (int(file.stem) for file in self._pids.glob("*.pid")) if is_alive(pid))

    async def __call__(self) -> None:
        alive = self.alive()
        if len(alive) > 1:
            psutil.Process(self._chance.choice(alive)).kill()
            self.kills += 1


async def replicas_killed(addresses: dict[str, str], pids: Path, documents: int, every_s: float, seed: int, least: int) -> Killed:
    """Write `documents`, and more until `least` replicas were killed, one every `every_s`; then compare the replicas."""
    client, killer = client_of(addresses), Killer(pids, seed)
    sent: list[str] = []

    async def inputs() -> AsyncIterator[Vector]:
        chance = np.random.default_rng(seed)
        while len(sent) < documents or killer.kills < least:
            for row in chance.random((BATCH, DIM), np.float32):
                sent.append(f"d{len(sent)}")
                yield Vector(id=sent[-1], embedding=row)

    answered: list[str] = []
    started = last = time.monotonic()
    slowest_s = 0.0
    async with every(every_s, killer):
        async for names in client.post("/index", inputs(), request_size=BATCH, prefetch=32, return_type=DocList[Name]):
            answered += [name.id for name in names]
            slowest_s, last = max(slowest_s, time.monotonic() - last), time.monotonic()
    seconds = time.monotonic() - started
    assert sorted(answered) == sorted(sent), "every write is answered, once"
    summaries = await summaries_of(client, killer)
    assert len({summary.state for summary in summaries}) == 1, summaries
    assert {summary.ids for summary in summaries} == {hash_of_ids(sent)}, "what was written, and nothing else"
    assert {(summary.count, summary.repeated) for summary in summaries} == {(len(sent), 0)}, summaries
    return Killed(len(sent), seconds, killer.kills, slowest_s)


async def summaries_of(client: Any, killer: Killer, replicas: int = 3) -> list[Summary]:
    """What each replica says of itself, when all are there and have applied all writes."""
    limit = time.monotonic() + 60
    found: dict[int, Summary] = {}
    while len(found) < replicas or set(found) != set(killer.alive()):
        assert time.monotonic() < limit, f"{len(found)} replicas answer, alive are {killer.alive()}"
        many = [_summary(client) for _ in range(2 * replicas)]
        found |= {summary.pid: summary for summary in await asyncio.gather(*many)}
        found = {pid: summary for pid, summary in found.items() if pid in killer.alive()}
    return list(found.values())


async def _summary(client: Any) -> Summary:
    async for summaries in client.post("/summary", return_type=DocList[Summary], consistency="latest"):
        return summaries[0]  # type: ignore[no-any-return]
    raise AssertionError("no answer")


@dataclass(frozen=True, slots=True)
class Reads:
    pairs: int
    stale: int
    others: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.pairs} writes, each read back at once, beside {self.others} others: {self.stale} stale reads, {self.seconds:.1f} s"


async def reads_of_own_writes(addresses: dict[str, str], pairs: int, consistency: str | None, prefix: str, protocol: str = "http") -> Reads:
    """One client writes a document and asks whether it is there, while another one writes."""
    client, other = client_of(addresses, protocol), client_of(addresses)
    row = np.zeros(DIM, np.float32)
    done, others, stale = asyncio.Event(), 0, 0

    async def noise() -> AsyncIterator[Vector]:
        nonlocal others
        while not done.is_set():
            others += 1
            yield Vector(id=f"{prefix}-other{others}", embedding=row)

    async def write_others() -> None:
        async for _ in other.post("/index", noise(), request_size=10, prefetch=4, return_type=DocList[Name]):
            pass

    writer = asyncio.create_task(write_others())
    started = time.monotonic()
    for number in range(pairs):
        name = f"{prefix}-{number}"
        async for _ in client.post("/index", Vector(id=name, embedding=row), return_type=DocList[Name]):
            pass
        async for names in client.post("/has", Name(id=name), return_type=DocList[Name], consistency=consistency):
            stale += not names[0].found
    done.set()
    await writer
    return Reads(pairs, stale, others, time.monotonic() - started)


async def catch_up(programs: Programs, broker_url: str, flow: str, pids: Path, replica: int) -> tuple[Program, float]:
    """Another replica of the executor, by itself: the program and the seconds from its start to ready."""
    started = time.monotonic()
    program = programs.streamflow(
        "worker", "--uses", "Vectors", "--py-modules", str(VECTORS), "--flow", flow, "--name", "vectors", "--broker", broker_url,
        "--uses-with", json.dumps({"folder": str(pids)}), "--replica", str(replica),
    )  # fmt: skip
    await asyncio.to_thread(program.wait_for, r"(?m)^ready", 300.0)
    return program, time.monotonic() - started
