"""Rates as token buckets, and the counting of what is in flight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.errors import Code, Status, TooLarge
from streamflow.gateway import quotas
from streamflow.gateway.principals import Limits, Principal
from streamflow.gateway.quotas import OverLimit, Quotas
from streamflow.gateway.status import RETRY_AFTER_S, retry_after_s


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(quotas, "time", made)
    return made


def limited(**limits: float) -> Principal:
    return Principal("jo", "shop", Limits(**limits))  # type: ignore[arg-type]


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 5), min_size=1, max_size=200),
)
def test_no_stretch_of_time_has_more_than_its_rate_and_one_burst(rate: float, burst: int, pauses: list[float]) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quotas, "time", clock)
        use, jo, taken = Quotas(), limited(requests_per_s=rate, burst=burst), []
        for pause in pauses:
            clock.now += pause
            try:
                use.release(use.take(jo, 0))
                taken.append(clock.now)
            except OverLimit:
                continue
    for at, start in enumerate(taken):
        for count, end in enumerate(taken[at:], 1):
            assert count <= burst + (end - start) * rate + 1e-6


def test_coming_back_when_told_to_is_soon_enough(clock: Clock) -> None:
    use, jo = Quotas(), limited(requests_per_s=0.3, burst=1)
    use.take(jo, 0)
    with pytest.raises(OverLimit, match=r"'jo' may send 0\.3 requests per second: the next one in 3\.3 s") as refused:
        use.take(jo, 0)
    status = Status.of(refused.value)
    assert status.code is Code.RESOURCE_EXHAUSTED and retry_after_s(status) == 4
    clock.now += retry_after_s(status)
    use.take(jo, 0)
    assert retry_after_s(Status(Code.RESOURCE_EXHAUSTED, "the queue is full")) == RETRY_AFTER_S


def test_what_is_refused_counts_for_nothing(clock: Clock) -> None:
    use, jo = Quotas(), limited(in_flight=1, requests_per_s=1, burst=2, max_request_bytes=10)
    with pytest.raises(TooLarge):
        use.take(jo, 11)
    first = use.take(jo, 10)
    for _ in range(5):
        with pytest.raises(OverLimit, match="in flight"):
            use.take(jo, 1)
    use.release(first)
    use.take(jo, 1)


def test_tenants_with_callers_of_the_same_name_do_not_share(clock: Clock) -> None:
    use = Quotas()
    for tenant in ("a", "b"):
        use.take(Principal("jo", tenant, Limits(in_flight=1)), 0)
    with pytest.raises(OverLimit):
        use.take(Principal("jo", "a", Limits(in_flight=1)), 0)


def test_the_memory_of_callers_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "_FORGET_AT", 100)
    use = Quotas()
    busy = use.take(Principal("busy", limits=Limits(in_flight=1)), 0)
    for number in range(1000):
        clock.now += 1
        use.release(use.take(Principal(f"p{number}"), 0))
        assert len(use._uses) <= 101
    with pytest.raises(OverLimit):
        use.take(Principal("busy", limits=Limits(in_flight=1)), 0)
    use.release(busy)
