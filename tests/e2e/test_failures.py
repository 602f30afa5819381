"""Processes that die under load, at the size of every day; `make chaos` does the same at length."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamflow.broker.server import EmbeddedBroker
from tests.chaos import scenarios

from .programs import Programs

pytestmark = pytest.mark.feature("ER-08", "QU-07")

SEED = 20261120
Say = Callable[[str], None]


@pytest.mark.feature("QU-01", "SC-01")
async def test_a_worker_added_takes_its_share(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    say(str(await scenarios.worker_added(programs, own_broker)))


async def test_a_worker_told_to_stop_costs_nobody_a_request(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    say(str(await scenarios.workers_drained(programs, own_broker, requests=3000, times=3, every_s=0.5)))


async def test_killed_workers_cost_nobody_a_request(programs: Programs, say: Say) -> None:
    figures = await scenarios.workers_killed(programs, requests=3000, every_s=0.4, seed=SEED)
    say(f"{figures} (seed {SEED})")
    assert figures.kills >= 4
    assert figures.slowest_s < 7.5 + 2.5, "a killed worker's requests come again within 1.5 x ack_wait"


async def test_a_killed_gateway_leaves_its_work_to_be_done(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    say(str(await scenarios.gateway_killed(programs, own_broker, requests=300)))


async def test_a_killed_broker_costs_nobody_a_request(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    figures = await scenarios.broker_killed(programs, own_broker, requests=4000, times=2, every_s=1.0, seed=SEED)
    say(f"{figures} (seed {SEED})")


async def test_broker_and_workers_killed_at_once(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    say(str(await scenarios.broker_and_worker_killed(programs, own_broker, requests=1500, times=1)))
