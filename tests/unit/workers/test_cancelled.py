"""Cancelled names: all of a crowd's, and not for ever."""

from __future__ import annotations

import pytest

from streamflow.workers import cancelled
from streamflow.workers.cancelled import FEW, MOST, NEW_S, Cancelled


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(cancelled, "monotonic", lambda: now[0])
    return now


def test_all_of_a_crowd_that_leaves_at_once_is_remembered(clock: list[float]) -> None:
    names = Cancelled()
    assert not names
    for number in range(MOST + 5):
        names.add(f"r{number}")
    assert len(names) == MOST
    assert f"r{MOST + 4}" in names and "r5" in names and "r4" not in names


def test_a_service_whose_clients_often_leave_does_not_grow(clock: list[float]) -> None:
    """Two a second for a day: what is older than five minutes goes as new ones come."""
    names = Cancelled()
    for number in range(2 * 86_400):
        clock[0] += 0.5
        names.add(f"r{number}")
    assert FEW <= len(names) <= FEW + 1 and len(names) >= 2 * NEW_S
    assert f"r{2 * 86_400 - 1}" in names
