"""Promises P1, P2, P7 and P20: nothing that was accepted is lost or recorded twice, whoever dies or is told to stop."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from time import monotonic

import aiohttp
import pytest

from streamflow.broker.server import EmbeddedBroker
from tests.e2e.checker import Done, Load, Seen, check, nothing_left, recorded
from tests.e2e.programs import Programs, broker_of, flow_file, step

from . import scenarios
from .recorded import JobBeside
from .scenarios import MARK, Until, WorkerKiller
from .sizes import LIMIT_S, SEED, size

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S), pytest.mark.feature("ER-08", "QU-07")]
Say = Callable[[str], None]
ALL = "0,1,2"


async def test_p1_workers_killed_in_the_middle_of_batches(programs: Programs, say: Say) -> None:
    """4 workers, batches of 16 that take 100 to 400 ms, one killed every 0.5 to 2 s, half of the requests online and half of a job."""
    ledger = programs.folder / "ledger"
    batched = step("work", replicas=4, ledger=str(ledger), mark=MARK, pause_s=0.1, spread_s=0.3)
    batched["uses_dynamic_batching"] = {"/run": {"preferred_batch_size": 16, "timeout": 20}}
    batched["max_deliver"] = 20  # one worker in four is killed each second: 5 of them die with some innocent request in hand
    program, addresses = programs.flow(flow_file(programs.folder, "batches", [batched]))
    broker_url, half = broker_of(program), size("P1_REQUESTS", 20_000, 200_000) // 2
    killer, chance = WorkerKiller(ledger, SEED, spare=1), random.Random(SEED)
    load = Load(f"http://{addresses['http']}/run", 128, headers={"x-streamflow-keep": "3600"})
    job = await JobBeside.submit(broker_url, "batches", half)
    wanted = Until(half, lambda: killer.kills >= size("P1_KILLS", 20, 200), LIMIT_S)
    async with scenarios.at_random(0.5, 2.0, chance, killer):
        seconds = await load.run(wanted)
        more = f", each recorded once; {await job.all_recorded(ledger)}"
    (await recorded(broker_url, "online")).check_count(len(wanted.sent))
    figures = await scenarios.finish("P1 workers killed", load, ledger, broker_url, wanted.sent, seconds, killer.kills, more)
    say(f"{figures} (seed {SEED})")


async def test_p2_a_broker_killed_again_and_again(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    """kill -9 under 64 publishers and a job: nothing lost, at most 1 % executed twice, nothing recorded twice."""
    inputs = 5000
    figures = await scenarios.broker_killed(
        programs, own_broker, size("P2_REQUESTS", 15_000, 200_000), size("P2_KILLS", 20, 500), 1.5, SEED, job_inputs=inputs, limit_s=LIMIT_S
    )
    repeated = figures.executions - figures.requests - inputs
    say(f"P2 {figures}, {repeated} executed again (seed {SEED})")
    assert repeated <= 0.01 * figures.executions


class Searches(Load):
    """Requests whose answer must name every shard once."""

    async def _ask(self, session: aiohttp.ClientSession, name: str) -> Seen:
        started = monotonic()
        async with session.post(self.url, json={"data": [{"id": name, "text": name}]}) as response:
            answer = json.loads(await response.read())
        found = ",".join(each["id"] for each in answer["data"][0]["found"]) if response.status == 200 else ""
        return Seen(name, response.status, found, str(answer.get("detail", "")), monotonic() - started)


async def test_p7_reducers_killed_under_sharded_searches(programs: Programs, say: Say) -> None:
    """Three shards of two replicas each, all polled; whoever stores the last part is the reducer, so killing any of them kills reducers.

    Each search is answered once with every shard in it, and the executor behind the shards sees each completed search once.
    """
    shards, behind = programs.folder / "shards", programs.folder / "behind"
    sharded = {**step("shards", replicas=2, kind="Shard", ledger=str(shards)), "shards": 3, "polling": "ALL"}
    file = flow_file(programs.folder, "searches", [sharded, step("behind", kind="Shard", ledger=str(behind))])
    program, addresses = programs.flow(file)
    killer = WorkerKiller(shards, SEED, spare=3)
    load = Searches(f"http://{addresses['http']}/run")
    wanted = Until(size("P7_SEARCHES", 20_000, 200_000), lambda: killer.kills >= size("P7_KILLS", 50, 1000), LIMIT_S)
    async with scenarios.at_random(0.3, 1.2, random.Random(SEED), killer):
        seconds = await load.run(wanted)
    await nothing_left(broker_of(program), forsaken=killer.kills)
    check(wanted.sent, load.seen, Done.read(shards), lambda name: f"{ALL},-1")
    fired = Done.read(behind).attempts
    twice = [name for name, attempts in fired.items() if attempts.count(1) > 1]
    assert not twice, f"the reducers completed {len(twice)} searches more than once, such as {twice[:3]}"
    slowest_s = max(one.seconds for one in load.seen)
    say(
        f"P7 reducers killed: {len(wanted.sent)} searches over 3 shards in {seconds:.1f} s, {killer.kills} kills, each answered once with "
        f"all shards and completed once, slowest answer {slowest_s:.2f} s (seed {SEED})"
    )


async def test_p20_workers_told_to_stop_under_load(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    times = size("P20_SIGTERMS", 200, 2000)
    say(f"P20 {await scenarios.workers_drained(programs, own_broker, requests=20_000, times=times, every_s=0.05, limit_s=LIMIT_S)}")
