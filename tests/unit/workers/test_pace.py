"""How many requests of jobs a worker holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamflow.workers.lanes import BULK_AHEAD_S, Pace


def settled(mean_s: float, slots: int = 1) -> Pace:
    pace = Pace(slots, slots > 1)
    for _ in range(200):
        pace.ended(mean_s)
    return pace


@given(st.floats(BULK_AHEAD_S * 1.01, 100.0), st.integers(1, 64))
def test_a_slow_handler_holds_one_beyond_its_slots(mean_s: float, slots: int) -> None:
    assert settled(mean_s, slots).bulk_held == slots + 1


@given(st.floats(1e-5, BULK_AHEAD_S))
def test_a_fast_one_holds_twice_the_work_that_it_may_have_under_way_ahead(mean_s: float) -> None:
    pace = settled(mean_s)
    ahead = pace.bulk_capacity - 1
    assert ahead * mean_s <= BULK_AHEAD_S * 1.01 and pace.bulk_held == pace.bulk_capacity + 1 + ahead


def test_a_clock_that_is_set_back_makes_a_slow_handler_hoard_nothing() -> None:
    pace = settled(1.0)
    held = pace.capacity
    pace.ended(-3600.0)
    assert pace.capacity == held
