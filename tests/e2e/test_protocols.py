"""One flow of three executors with 2, 3 and 1 replicas, and every way to ask it: the same documents give the same answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from .checker import Done, nothing_left
from .executors.steps import Item
from .programs import Program, Programs, broker_of, flow_file, step
from .wires import WAYS

pytestmark = pytest.mark.feature("GW-01", "GW-02", "DC-05")

TEXTS = ["", "plain", "Grüße, 世界 \U0001f600", 'quote " and \\ back', "line\nbreak\ttab", "a" * 5000, "\x7f\u2028", "0"]
DOCS = [Item(id=f"doc{at}", text=text, number=at * 1000, tags=[text[:3]] * at) for at, text in enumerate(TEXTS)]
EXPECTED = [{"id": doc.id, "text": doc.text + "123", "number": doc.number, "tags": doc.tags} for doc in DOCS]


@dataclass
class Served:
    program: Program
    addresses: dict[str, str]
    ledgers: list[Path]


@pytest.fixture(scope="module")
def flow(module_programs: Programs) -> Served:
    ledgers = [module_programs.folder / f"ledger{at}" for at in range(3)]
    executors = [
        step(name, replicas=replicas, mark=mark, ledger=str(ledger))
        for name, replicas, mark, ledger in zip(("one", "two", "three"), (2, 3, 1), "123", ledgers, strict=True)
    ]
    file = flow_file(module_programs.folder, "protocols", executors, ("grpc", "http", "websocket"))
    program, addresses = module_programs.flow(file)
    return Served(program, addresses, ledgers)


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_gives_the_same_answer(flow: Served, way: str) -> None:
    assert await WAYS[way](flow.addresses, DOCS, "/run") == EXPECTED


async def test_all_ways_at_once_and_every_replica_works(flow: Served) -> None:
    found = await asyncio.gather(*(ask(flow.addresses, DOCS, "/run") for ask in WAYS.values() for _ in range(20)))
    assert all(one == EXPECTED for one in found)
    replicas = [len(Done.read(ledger).runs) for ledger in flow.ledgers]
    assert replicas == [2, 3, 1]
    attempts = Counter(attempt for ledger in flow.ledgers for runs in Done.read(ledger).attempts.values() for attempt in runs)
    assert set(attempts) == {1}, f"deliveries by attempt: {attempts}"
    await nothing_left(broker_of(flow.program))
