from hypothesis import given
from hypothesis import strategies as st

from load.drivers.figures import percentile, summary


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.50), percentile(values, 0.99), percentile(values, 1.0)) == (50.0, 99.0, 100.0)


@given(st.lists(st.floats(0, 1e3), min_size=1), st.floats(0.01, 1.0))
def test_at_least_the_share_of_values_lies_at_or_below_its_percentile(values: list[float], share: float) -> None:
    found = percentile(sorted(values), share)
    assert sum(value <= found for value in values) >= share * len(values) * (1 - 1e-9)


def test_a_rate_counts_good_answers_only() -> None:
    figures = summary([0.001, 0.002, 0.003, 0.004], errors=1, seconds=2.0)
    assert (figures["requests"], figures["rps"], figures["p50_ms"]) == (4, 1.5, 2.0)


def test_no_answers_are_no_division_by_zero() -> None:
    assert summary([], 0, 0.0)["rps"] == 0.0
