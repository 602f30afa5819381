"""Stateful executors at full size: `make chaos`. `CHAOS_SEED` repeats a run, `STREAMFLOW_DOCUMENTS` sets the size of the large snapshot."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest
from docarray import DocList

from tests.e2e.executors.vectors import Name
from tests.e2e.programs import Program, Programs, broker_of

from . import stateful
from .sizes import SEED

DOCUMENTS = int(os.environ.get("STREAMFLOW_DOCUMENTS", 1_000_000))
AT_ONCE = 10_000
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.feature("ST-01", "ST-02", "ST-05", "T-46")]
Say = Callable[[str], None]


@pytest.mark.feature("ST-06")
async def test_replicas_killed_while_100_000_documents_are_written(programs: Programs, say: Say) -> None:
    _, addresses, pids = stateful.vectors_flow(programs, snapshot_every=200)
    figures = await stateful.replicas_killed(addresses, pids, 100_000, every_s=2.0, seed=SEED, least=5)
    say(f"{figures} (seed {SEED})")


@pytest.mark.feature("ST-04")
async def test_reads_of_own_writes(programs: Programs, say: Say) -> None:
    _, addresses, _ = stateful.vectors_flow(programs)
    latest = await stateful.reads_of_own_writes(addresses, 2000, "latest", "latest")
    say(f"latest: {latest}")
    say(f"any: {await stateful.reads_of_own_writes(addresses, 500, None, 'any')}")
    assert latest.stale == 0


async def test_a_new_replica_catches_up_from_a_large_snapshot(programs: Programs, say: Say) -> None:
    writes = DOCUMENTS // AT_ONCE
    program, addresses, pids = stateful.vectors_flow(programs, replicas=1, snapshot_every=writes)
    client = stateful.client_of(addresses)
    for seed in range(writes + 5):  # the last five are the tail behind the snapshot
        async for _ in client.post("/fill", parameters={"count": AT_ONCE, "seed": seed}, return_type=DocList[Name]):
            pass
        if seed == writes - 1:
            taken = await asyncio.to_thread(_snapshot_line, program)
    replica, seconds = await stateful.catch_up(programs, broker_of(program), "state", pids, 1)
    killer = stateful.Killer(pids, SEED)
    summaries = await stateful.summaries_of(client, killer, replicas=2)
    assert len({summary.state for summary in summaries}) == 1 and summaries[0].count == (writes + 5) * AT_ONCE, summaries
    say(f"{summaries[0].count} documents: {taken}; a new replica is ready {seconds:.1f} s after its start")
    assert replica.process.poll() is None


def _snapshot_line(program: Program) -> str:
    return program.wait_for(r"snapshot at \d+, \d+ bytes, in [\d.]+ s", 120.0)[0]
