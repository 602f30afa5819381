"""Stateful executors as real processes, at the size of every day; `make chaos` does the same at length."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos import stateful

from .programs import Programs

pytestmark = pytest.mark.feature("ST-01", "ST-02", "ST-04", "ST-05", "ST-06")


async def test_killed_replicas_end_alike_and_a_client_reads_its_own_writes(programs: Programs, say: Callable[[str], None]) -> None:
    _, addresses, pids = stateful.vectors_flow(programs, snapshot_every=15, ack_wait_s=1.0)
    say(str(await stateful.replicas_killed(addresses, pids, 2000, every_s=0.5, seed=20261120, least=2)))
    for protocol in ("http", "grpc"):
        reads = await stateful.reads_of_own_writes(addresses, 30, "latest", protocol, protocol)
        assert reads.stale == 0, reads
