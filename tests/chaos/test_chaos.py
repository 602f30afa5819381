"""The failures of `tests/e2e/test_failures.py` at full size, and rarer ones: `make chaos`. `CHAOS_SEED` repeats a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamflow.broker.server import EmbeddedBroker
from tests.e2e.programs import Programs

from . import scenarios
from .sizes import LIMIT_S, SEED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S), pytest.mark.feature("ER-08", "QU-07")]
Say = Callable[[str], None]


async def test_workers_killed_every_second(programs: Programs, say: Say) -> None:
    say(f"{await scenarios.workers_killed(programs, requests=20_000, every_s=1.0, seed=SEED)} (seed {SEED})")


async def test_workers_killed_as_fast_as_they_come(programs: Programs, say: Say) -> None:
    say(f"{await scenarios.workers_killed(programs, requests=3000, every_s=0.1, seed=SEED)} (seed {SEED})")


async def test_workers_killed_along_a_chain(programs: Programs, say: Say) -> None:
    say(f"{await scenarios.chain_killed(programs, requests=10_000, every_s=0.5, seed=SEED)} (seed {SEED})")


async def test_workers_drained_one_after_the_other(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    say(str(await scenarios.workers_drained(programs, own_broker, requests=30_000, times=12, every_s=0.5)))


async def test_a_gateway_killed_with_thousands_in_flight(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    say(str(await scenarios.gateway_killed(programs, own_broker, requests=900)))


async def test_a_broker_killed_five_times(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    figures = await scenarios.broker_killed(programs, own_broker, requests=15_000, times=5, every_s=2.0, seed=SEED)
    say(f"{figures} (seed {SEED})")


async def test_broker_and_workers_killed_together(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    say(str(await scenarios.broker_and_worker_killed(programs, own_broker, requests=8000, times=3)))


@pytest.mark.parametrize("seconds", [5, 13])
async def test_a_broker_that_stays_away(programs: Programs, own_broker: EmbeddedBroker, say: Say, seconds: float) -> None:
    say(str(await scenarios.broker_away(programs, own_broker, requests=3000, seconds=seconds)))


async def test_a_frozen_worker(programs: Programs, own_broker: EmbeddedBroker, say: Say) -> None:
    say(str(await scenarios.worker_frozen(programs, own_broker, requests=2000)))
