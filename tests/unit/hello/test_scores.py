"""What `hello digits` prints about its own quality must be the plain definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.hello.scores import Span, Timing, quality, timings

LABELS = st.lists(st.sampled_from("abc"), max_size=30)


def test_precision_and_recall_follow_their_definitions() -> None:
    found = quality([("a", ["a", "b"]), ("b", ["b", "b"])], indexed=["a", "a", "a", "a", "b", "b"], k=2)
    assert (found.queries, found.precision) == (2, 0.75)
    assert found.recall == pytest.approx((1 / 4 + 2 / 2) / 2)
    assert found.recall_ceiling == pytest.approx((2 / 4 + 2 / 2) / 2)


def test_hits_beyond_k_do_not_count_and_missing_ones_count_as_wrong() -> None:
    assert quality([("a", ["a", "a", "a"])], indexed="aaaa", k=2).precision == 1.0
    assert quality([("a", ["a"])], indexed="aaaa", k=2).precision == 0.5


def test_a_label_that_is_not_indexed_scores_zero() -> None:
    assert quality([("z", ["a"])], indexed="aaa").recall == 0.0


def test_no_queries_is_no_division_by_zero() -> None:
    assert quality([], indexed="abc").queries == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), LABELS), max_size=10), LABELS, st.integers(1, 12))
def test_hits_that_come_from_the_index_never_beat_the_ceiling(queries: list[tuple[str, list[str]]], stock: list[str], k: int) -> None:
    answers = [(label, ([label] * stock.count(label) + [one for one in stock if one != label])[:k]) for label, _ in queries]
    found = quality(answers, stock, k)
    assert found.recall == pytest.approx(found.recall_ceiling)
    assert 0.0 <= found.precision <= 1.0


def test_timings_are_milliseconds_per_hop_in_order_and_leave_out_what_never_ran() -> None:
    spans = [
        Span("gateway", 0.0, 1.0, 1.5),
        Span("encoder", 0.875, 1.0, 1.25),
        Span("gateway", 0.0, 2.0, 2.25),
        Span("indexer", 1.0, 0.0, 0.0),
    ]
    assert timings(spans) == [Timing("gateway", 2, 375.0, 500.0), Timing("encoder", 1, 250.0, 250.0, waited_ms=125.0)]
