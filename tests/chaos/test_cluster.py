"""A flow on a cluster of three brokers, one of which is killed, frozen or cut off every ten seconds (promise P4); and a rolling upgrade.

`STREAMFLOW_CLUSTER_S` sets for how many seconds, `STREAMFLOW_CLUSTER_RATE` how many requests a second. The silence after an event is the
election of a new leader: 4 to 9 s, fixed in NATS; `STREAMFLOW_OLD_NATS_SERVER` names the older server.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats.errors
import pytest

from load.drivers.http_client import BadAnswer
from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.flow import Graph, Node
from streamflow.broker.pull import Delivery, Pull
from streamflow.broker.reach import DOUBT_S, PING
from streamflow.broker.server import find_server_binary
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.doctor.broker import examine
from streamflow.doctor.verdict import Level
from tests.e2e.checker import Done, Load, Seen, _seen, check, nothing_left
from tests.e2e.programs import Programs
from tests.waiting import eventually

from .cluster import SIZE, Cluster
from .scenarios import Parts, marked
from .traffic import Traffic, traffic

SECONDS = float(os.environ.get("STREAMFLOW_CLUSTER_S", "60"))
SEED = int(os.environ.get("CHAOS_SEED", secrets.randbelow(1 << 31)))
EVERY_S = 10.0
AWAY_S = 5.0
RATE = float(os.environ.get("STREAMFLOW_CLUSTER_RATE", "300"))
MOST = int(20 * RATE)  # open at once: what is due in the longest silence that is thinkable
SILENCE_S = 20.0  # an election of 4 to 9 s, and 10 s until a leader whose own copy is not complete asks for what it lacks (NATS)
LEFT_S = 6.0  # until a server that is cut off or frozen is left: 3 s, on a machine that does other things
HEALTHY_S = 60.0
OLD_SERVER = os.environ.get("STREAMFLOW_OLD_NATS_SERVER")
GRAPH = Graph("shop", (Node("e"),))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 240)]
Say = Callable[[str], None]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "cluster", SEED)
    try:
        made.start()
        yield made
    finally:
        made.stop()


class Paced(Load):
    """An open loop: `RATE` requests a second, whatever becomes of those before, with as little work for this process as possible: one
    that cannot keep up measures itself. So those that are due while `MOST` are open are not sent, but counted."""

    unsent = 0

    async def run_while(self, work: Coroutine[Any, Any, None]) -> list[str]:
        """Send until `work` is done. Returns the names of what was sent; raises what `work` raises."""
        sent: list[str] = []
        task = asyncio.create_task(work)
        started, due = time.monotonic(), 0
        async with traffic(self.url) as requests, asyncio.TaskGroup() as group:
            while not task.done():
                due += 1
                if len(sent) - len(self.seen) < MOST:
                    sent.append(f"r{len(sent)}")
                    group.create_task(self._one(requests, sent[-1]))
                else:
                    self.unsent += 1
                await asyncio.sleep(max(0.0, started + due / RATE - time.monotonic()))  # also when late: answers are read in between
        task.result()
        return sent

    async def _one(self, requests: Traffic, name: str) -> None:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.timeout_s):
                status, body = await requests.post(json.dumps({"data": [{"id": name, "text": name}]}).encode())
            seen = _seen(name, status, body, time.monotonic() - started)
        except (OSError, BadAnswer, TimeoutError) as error:
            seen = Seen(name, 0, detail=repr(error), seconds=time.monotonic() - started)
        self.seen.append(seen)
        if self.on_answer is not None:
            self.on_answer(seen)


class Gaps:
    """The longest time without any answer after each event, and when each event was (Unix seconds)."""

    def __init__(self) -> None:
        self.longest: list[float] = []
        self.events: list[float] = []
        self._last = time.monotonic()

    def event(self) -> None:
        self.longest.append(0.0)
        self.events.append(time.time())

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


@dataclass
class Run:
    """A flow of one executor on the cluster under a steady load, and what came of it."""

    parts: Parts
    load: Paced
    gaps: Gaps
    sent: list[str] = field(default_factory=list)

    @classmethod
    def on(cls, cluster: Cluster, programs: Programs) -> Run:
        parts = Parts(programs, cluster)  # type: ignore[arg-type]  # all that it needs is the URL
        _, url = parts.gateway()
        parts.workers(2)
        gaps = Gaps()
        return cls(parts, Paced(url, on_answer=gaps.answered), gaps)

    def __str__(self) -> str:
        seconds = sorted(one.seconds for one in self.load.seen)
        answers = dict(Counter(one.status for one in self.load.seen))
        return (
            f"{len(self.sent)} requests ({self.load.unsent} more were due), answers {answers}; "
            f"p50 {1000 * seconds[len(seconds) // 2]:.1f} ms, p99 {seconds[int(0.99 * len(seconds))]:.2f} s, slowest {seconds[-1]:.2f} s"
        )

    async def check(self, cluster: Cluster, refused: frozenset[int] = frozenset()) -> None:
        await settled(cluster)
        check(self.sent, self.load.seen, Done.read(self.parts.ledger), marked, refused=refused)


def election_s(cluster: Cluster, since: float) -> float:
    """Seconds from an event until the work queue and its consumer had their leaders; 0.0 when they kept them."""
    ours = [after_s for after_s, what in cluster.leaders(since) if "sf_parts_work" in what and after_s < EVERY_S]
    return max(ours, default=0.0)


async def test_a_broker_of_three_is_away_every_ten_seconds(
    programs: Programs, cluster: Cluster, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFLOW_STREAM_REPLICAS", str(SIZE))
    run, story = Run.on(cluster, programs), list[str]()

    async def trouble() -> None:
        limit = time.monotonic() + SECONDS
        while time.monotonic() < limit:
            await asyncio.sleep(EVERY_S - AWAY_S)
            # A server that has not caught up yet is as good as away: with the next one there would be no majority.
            await eventually(lambda: asyncio.to_thread(cluster.is_healthy), HEALTHY_S, "all servers have caught up")
            run.gaps.event()
            server, how = cluster.hit()
            try:
                await asyncio.sleep(AWAY_S)
            finally:
                cluster.heal(server)
            story.append(f"{how} {server.name}")

    run.sent = await run.load.run_while(trouble())
    elections = [election_s(cluster, since) for since in run.gaps.events]
    each = zip(story, run.gaps.longest, elections, strict=True)
    told = ", ".join(f"{what} {gap:.1f} ({election:.1f})" for what, gap, election in each)
    say(f"cluster: {run}; longest silence after each event, and of it the election, s: {told} (seed {SEED})")
    await run.check(cluster, refused=frozenset({503}))
    assert max(run.gaps.longest, default=0.0) <= SILENCE_S


@pytest.mark.skipif(not OLD_SERVER, reason="STREAMFLOW_OLD_NATS_SERVER does not name an older nats-server")
async def test_brokers_are_replaced_by_newer_ones_without_a_failed_request(
    programs: Programs, tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMFLOW_STREAM_REPLICAS", str(SIZE))
    assert OLD_SERVER is not None
    cluster = Cluster(tmp_path / "cluster", SEED, Path(OLD_SERVER))
    try:
        cluster.start()
        run = Run.on(cluster, programs)

        async def replace() -> None:
            for server in cluster.servers:
                run.gaps.event()
                server.lame_duck()
                await asyncio.to_thread(server.wait_end, HEALTHY_S)
                server.binary = find_server_binary()
                cluster.start_one(server)
                await eventually(lambda: asyncio.to_thread(cluster.is_healthy), HEALTHY_S, "all servers have caught up")

        run.sent = await run.load.run_while(replace())
        silences = ", ".join(f"{gap:.2f}" for gap in run.gaps.longest)
        say(f"rolling upgrade: {run}; longest silence after each {silences} s")
        await run.check(cluster)
    finally:
        cluster.stop()


@pytest.mark.parametrize("how", ["silence", "cut", "pause"])
async def test_a_server_that_is_cut_off_or_frozen_is_left(cluster: Cluster, say: Say, how: str) -> None:
    """Though it keeps the connection, and as the leader of everything believes for 10 s that all is well."""
    settings = BrokerSettings(broker_url=cluster.servers[0].url, stream_replicas=SIZE)
    bus = await Bus.connect(settings, "test")
    await provision(bus, GRAPH, settings)
    pulled: list[bytes] = []

    def take(delivery: Delivery) -> None:
        pulled.append(delivery.payload)
        delivery.ack()

    pull = Pull(bus, subjects.work_stream("shop", "e"), "now", take)
    await pull.start()
    first, back = bus.server_id, asyncio.Event()
    bus.on_reconnect(back.set)
    cluster.take_away(cluster.servers[0], how)
    started = time.monotonic()
    stored = asyncio.create_task(bus.store_wait(subjects.work("shop", "e", "now", "r1"), b"r1", "r1"))
    await asyncio.wait_for(back.wait(), LEFT_S)
    left_s = time.monotonic() - started
    assert bus.server_id != first
    assert await asyncio.wait_for(stored, SILENCE_S) == 1
    stored_s = time.monotonic() - started
    await eventually(lambda: pulled == [b"r1"], SILENCE_S)
    say(f"{how}: left after {left_s:.1f} s, stored after {stored_s:.1f} s, pulled after {time.monotonic() - started:.1f} s")
    cluster.heal(cluster.servers[0])
    await pull.stop()
    await bus.close()


async def test_a_server_through_which_nothing_comes_from_a_consumer_is_left(cluster: Cluster) -> None:
    """Whatever the reason: for longer than an election takes, it refuses though it reaches the others."""
    settings = BrokerSettings(broker_url=cluster.servers[0].url, stream_replicas=SIZE)
    bus = await Bus.connect(settings, "test")
    await provision(bus, GRAPH, settings)
    pull = Pull(bus, subjects.work_stream("shop", "e"), "now", lambda delivery: delivery.ack())
    await pull.start()
    await bus.api(f"CONSUMER.DELETE.{subjects.work_stream('shop', 'e')}.now")
    first = bus.server_id
    await eventually(lambda: bus.connected and bus.server_id != first, DOUBT_S + LEFT_S, "another server is tried")
    await pull.stop()
    await bus.close()


async def test_a_user_who_may_not_ask_for_the_servers_is_told_and_works_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its rights were generated by an older version."""
    users = f'[{{user: "ann", password: "one", permissions: {{publish: {{deny: ["{PING}"]}}}}}}]'
    cluster = Cluster(tmp_path / "cluster", SEED, more=f"authorization {{ users: {users} }}")
    try:
        cluster.start()
        settings = BrokerSettings(broker_url=cluster.servers[0].url.replace("//", "//ann:one@"), stream_replicas=SIZE)
        bus = await Bus.connect(settings, "test")
        await eventually(lambda: "will not be noticed" in caplog.text)
        await provision(bus, GRAPH, settings)
        assert await bus.store_wait(subjects.work("shop", "e", "now", "r1"), b"r1", "r1") == 1
        assert caplog.text.count("will not be noticed") == 1
        await bus.close()
    finally:
        cluster.stop()


async def test_the_doctor_sees_a_server_that_is_away(cluster: Cluster) -> None:
    settings = BrokerSettings(broker_url=cluster.url, stream_replicas=SIZE, monitoring_url=cluster.monitoring_url)
    bus = await Bus.connect(settings, "test")
    await provision(bus, GRAPH, settings)
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
