"""A flow on a cluster of three brokers, one of which is killed or frozen every ten seconds (promise P4).

`STREAMFLOW_CLUSTER_S` sets for how many seconds. The silence after an event is the election of a new leader: 4 to 9 s, fixed in NATS.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import nats.errors
import pytest

from streamflow.broker.bus import Bus
from streamflow.broker.flow import Graph, Node
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.doctor.broker import examine
from streamflow.doctor.verdict import Level
from tests.e2e.checker import Done, Load, check, nothing_left
from tests.e2e.programs import Programs

from .cluster import SIZE, Cluster
from .scenarios import Parts, marked

SECONDS = float(os.environ.get("STREAMFLOW_CLUSTER_S", "60"))
SEED = int(os.environ.get("CHAOS_SEED", secrets.randbelow(1 << 31)))
EVERY_S = 10.0
AWAY_S = 5.0
RATE = 300.0
SILENCE_S = 15.0  # an election of 9 s, and one more of a consumer's leader when the machine is busy
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 240)]
Say = Callable[[str], None]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "cluster", SEED)
    made.start()
    yield made
    made.stop()


class Paced(Load):
    """An open loop: `RATE` requests a second, whatever becomes of those before."""

    async def run_for(self, seconds: float) -> list[str]:
        sent: list[str] = []
        started = time.monotonic()
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=self.timeout_s)) as session,
            asyncio.TaskGroup() as group,
        ):
            while (now := time.monotonic() - started) < seconds:
                while len(sent) < now * RATE:
                    sent.append(f"r{len(sent)}")
                    group.create_task(self._one(session, sent[-1]))
                await asyncio.sleep(0.005)
        return sent

    async def _one(self, session: aiohttp.ClientSession, name: str) -> None:
        self.seen.append(await self._ask(session, name))
        if self.on_answer is not None:
            self.on_answer(self.seen[-1])


class Gaps:
    """The longest time without any answer after each event."""

    def __init__(self) -> None:
        self.longest: list[float] = []
        self._last = time.monotonic()

    def event(self) -> None:
        self.longest.append(0.0)

    def answered(self, _seen: object) -> None:
        now = time.monotonic()
        if self.longest:
            self.longest[-1] = max(self.longest[-1], now - self._last)
        self._last = now


async def settled(cluster: Cluster, timeout_s: float = 60.0) -> None:
    """Wait until every queue is empty; the cluster may need a while to answer at all."""
    limit = time.monotonic() + timeout_s
    while True:
        try:
            await nothing_left(cluster.servers[0].url, timeout_s=30)
            return
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError, AssertionError) as error:
            assert "JetStream system temporarily unavailable" in str(error) or isinstance(error, nats.errors.Error), str(error)
            assert time.monotonic() < limit, "the cluster does not answer any more"


async def test_a_broker_of_three_is_killed_or_frozen_every_ten_seconds(
    programs: Programs, cluster: Cluster, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFLOW_STREAM_REPLICAS", str(SIZE))
    parts = Parts(programs, cluster)  # type: ignore[arg-type]  # all that it needs is the URL
    _, url = parts.gateway()
    parts.workers(2)
    gaps, story = Gaps(), list[str]()
    load = Paced(url, on_answer=gaps.answered)

    async def trouble() -> None:
        while True:
            await asyncio.sleep(EVERY_S - AWAY_S)
            gaps.event()
            server, how = cluster.hit()
            story.append(f"{how} {server.name}")
            await asyncio.sleep(AWAY_S)
            cluster.heal(server)

    task = asyncio.create_task(trouble())
    try:
        sent = await load.run_for(SECONDS)
    finally:
        task.cancel()
        await asyncio.wait([task])
        for server in cluster.servers:
            if server.is_away:
                cluster.heal(server)
    statuses = Counter(one.status for one in load.seen)
    slowest_s = sorted(one.seconds for one in load.seen)
    say(
        f"cluster: {len(sent)} requests in {SECONDS:g} s, answers {dict(statuses)}, events {', '.join(story)}; longest silence after each "
        f"{', '.join(f'{gap:.1f}' for gap in gaps.longest)} s; p50 {1000 * slowest_s[len(slowest_s) // 2]:.1f} ms, "
        f"p99 {slowest_s[int(0.99 * len(slowest_s))]:.2f} s, slowest {slowest_s[-1]:.2f} s (seed {SEED})"
    )
    await settled(cluster)
    check(sent, load.seen, Done.read(parts.ledger), marked, refused=frozenset({503}))
    assert max(gaps.longest, default=0.0) <= SILENCE_S


async def test_the_doctor_sees_a_server_that_is_away(cluster: Cluster) -> None:
    settings = BrokerSettings(broker_url=cluster.url, stream_replicas=SIZE, monitoring_url=cluster.monitoring_url)
    bus = await Bus.connect(settings, "test")
    await provision(bus, Graph("shop", (Node("e"),)), settings)
    await bus.close()
    assert await failures(settings) == []
    promised = settings.model_copy(update={"durability": "fsync"})
    assert any("acknowledges before it writes to disk" in text for text in await failures(promised))
    cluster.servers[1].kill()
    limit = time.monotonic() + 30
    while not any("n1 are offline or behind" in text for text in await failures(settings)):
        assert time.monotonic() < limit


async def failures(settings: BrokerSettings) -> list[str]:
    return [verdict.text async for verdict in examine(settings) if verdict.level is Level.FAIL]
