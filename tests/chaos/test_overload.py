"""Promises P15 and P17: what comes above capacity is refused at once and costs nobody else anything; a slow replica gets less work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import pytest

from streamflow.broker.server import EmbeddedBroker
from tests.e2e.checker import Done
from tests.e2e.programs import Program, Programs, addresses_of, flow_file, step

from .scenarios import Parts, ready
from .sizes import LIMIT_S, size
from .traffic import MIB, good, listening, memory_of, quantile, traffic, windows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S), pytest.mark.feature("QU-03", "SC-01")]
Say = Callable[[str], None]

QUEUE = 50  # requests that may wait
TIMES = 10
NORMAL = 0.3  # of capacity


async def test_p15_ten_times_what_the_flow_can_do(programs: Programs, say: Say) -> None:
    seconds = size("P15_SECONDS", 30, 600)
    file = flow_file(programs.folder, "overload", [step("work", pause_s=0.02)])
    program = programs.streamflow("flow", "--uses", str(file), STREAMFLOW_MAX_QUEUE_MESSAGES=str(QUEUE))
    async with traffic(f"http://{addresses_of(program)['http']}/run") as clients:
        await clients.closed(8, 1.0)
        capacity = await clients.throughput(8, 5.0)
        normal_s = quantile(await clients.at_rate(capacity * NORMAL, 8.0), 0.99)
        async with memory_of(listening(program).pid) as memory:
            flood = await clients.at_rate(capacity * TIMES, seconds)
        after = monotonic()
        calm = await clients.at_rate(capacity * NORMAL, 12.0)
    accepted, refused = good(flood), [answer for answer in flood if answer.status == 429]
    strange = {answer.status for answer in flood} - {200, 429}
    assert not strange, f"answers other than 200 and 429: {strange}"
    goodput = len(accepted) / seconds / capacity
    unusual = [since + 1 for since, some in windows(calm, after, 1.0) if quantile(some, 0.99) > 2 * normal_s]
    back_s = max(unusual, default=0.0)
    quick = sum(answer.seconds <= 0.02 for answer in refused) / len(refused)
    stages = list(zip(*(answer.stages() for answer in refused), strict=True))
    late = [1e3 * sorted(stage)[int(0.99 * len(refused))] for stage in stages]
    told = sum(way + inside <= 0.02 for _, way, inside, _ in zip(*stages, strict=True)) / len(refused)
    say(
        f"P15 {TIMES} x overload for {seconds} s: capacity {capacity:.0f}/s, goodput {goodput:.0%} of it; accepted within "
        f"{quantile(accepted, 0.99):.2f} s (p99; {QUEUE} may wait); {len(refused)} told 429 after "
        f"{1e3 * quantile(refused, 0.5):.1f} ms (median), {1e3 * quantile(refused, 0.99):.1f} ms (p99), "
        f"{quick:.1%} within 20 ms, {told:.2%} on the gateway's side (p99: sent {late[0]:.1f} ms late, read after {late[1]:.1f} ms, "
        f"refused after {late[2]:.1f} ms, had after {late[3]:.1f} ms); gateway {memory[0] / MIB:.0f} to "
        f"{max(memory) / MIB:.0f} MiB; p99 {1e3 * normal_s:.0f} ms before, normal again after {back_s:.0f} s"
    )
    assert goodput >= 0.95
    assert quantile(refused, 0.95) <= 0.02 and told >= 0.98
    assert max(memory) <= 512 * MIB and memory[-1] - memory[len(memory) // 3] <= 16 * MIB
    assert back_s <= 10.0


async def test_p17_a_slow_replica_gets_less(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    """Shares against the speeds that were measured with each replica alone, 5 ms and 50 ms a request."""
    parts = Parts(programs, own_broker)
    _, url = parts.gateway()
    pauses = (0.005, 0.05)
    async with traffic(url) as clients:

        async def alone(pause_s: float) -> float:
            worker = await _worker(programs, parts, pause_s)
            await clients.closed(32, 1.0)
            speed = await clients.throughput(32, 5.0)
            await asyncio.to_thread(worker.stop)
            return speed

        first = [await alone(pause_s) for pause_s in pauses]
        both = [await _worker(programs, parts, pause_s) for pause_s in pauses]
        await clients.closed(32, 1.0)
        before = Done.read(parts.ledger).runs
        together = await clients.throughput(32, size("P17_SECONDS", 15, 120))
        runs = Done.read(parts.ledger).runs
        for worker in both:
            await asyncio.to_thread(worker.stop)
        last = [await alone(pause_s) for pause_s in pauses]
    fast, slow = (len(runs[program.pid]) - len(before.get(program.pid, ())) for program in both)
    speeds = [(one + other) / 2 for one, other in zip(first, last, strict=True)]  # before and after: the machine changes
    ratio, wanted = fast / slow, speeds[0] / speeds[1]
    say(
        f"P17 replicas of {speeds[0]:.0f} and {speeds[1]:.0f} requests/s share {fast} to {slow}: {ratio:.1f} to 1, speeds "
        f"{wanted:.1f} to 1; together {together:.0f}/s, {together / sum(speeds):.0%} of the sum"
    )
    assert wanted * 0.85 <= ratio <= wanted * 1.15
    assert together * 1.15 >= sum(speeds)


async def _worker(programs: Programs, parts: Parts, pause_s: float) -> Program:
    program = programs.worker(parts.broker.url, "parts", "work", ledger=str(parts.ledger), pause_s=pause_s)
    await ready(program)
    return program
