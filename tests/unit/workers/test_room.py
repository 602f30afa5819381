"""Room: as much ahead of the workers as they need between two looks, and little more."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings

from streamflow.workers.room import LARGEST, SMALLEST, Room


def fill(room: Room, most: int = LARGEST) -> int:
    """How many places were taken."""
    for taken in range(most):
        if not room.is_left():
            return taken
        room.take()
    return most


def simulate(held: int, per_look: int, looks: int) -> list[int]:
    """What waits in the broker after each look, with workers that hold `held` and run `per_look` until the next one."""
    room, under_way, waiting = Room("stream", "bulk"), 0, []
    for _ in range(looks):
        busy = min(under_way, held)
        waiting.append(under_way - busy)
        room.see(under_way - busy, busy, 0)
        under_way += fill(room)
        under_way -= min(under_way, per_look)
    return waiting


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 2000))
def test_workers_find_something_and_not_much_waits_before_who_comes_later(held: int, per_look: int) -> None:
    waiting = simulate(held, per_look, 120)[-40:]
    assert all(waiting), "the workers ran dry"
    assert max(waiting) <= max(SMALLEST, GROWN * (per_look + held))


GROWN = 4.5


def test_room_that_nobody_wants_does_not_grow() -> None:
    room = Room("stream", "bulk")
    for _ in range(100):
        room.see(0, 1, 0)
        assert fill(room, 2) == 2
    assert fill(room) <= SMALLEST


def test_what_is_on_its_way_to_the_broker_counts() -> None:
    room = Room("stream", "bulk")
    room.see(1, 2, 3)
    assert fill(room) == SMALLEST - 6


def test_one_is_too_small_when_somebody_missed_a_place_and_nothing_is_left() -> None:
    room = Room("stream", "bulk")
    assert fill(room) == SMALLEST
    room.see(0, 1, SMALLEST - 1)
    assert not room.was_too_small, "the rest is on its way"
    assert fill(room) == 0
    room.see(0, 1, 0)
    assert room.was_too_small
    room.see(0, 1, 0)
    assert not room.was_too_small, "nobody missed one since"
