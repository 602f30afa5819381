"""Which of the requests that wait make up the next batch, and when it may start."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.codec import Decoded
from streamflow.workers.decorators import Batching
from streamflow.workers.waiting import MAX_REST_S, Member, Waiting
from tests.unit.workers.bench import docs_of

pytestmark = pytest.mark.feature("DB-04")


def member(count: int, options: Batching, arrived: float = 0.0, key: str = "", sizes: list[float] | None = None) -> Member:
    job: Any = SimpleNamespace(name=f"{count} at {arrived}")
    spec: Any = SimpleNamespace(batching=options)
    return Member(job, spec, key, arrived, Decoded(docs_of([str(n) for n in range(count)])), {}, {}, sizes or [1.0] * count)


def drained(waiting: Waiting, now: float = 0.0) -> list[list[tuple[Member, int, int]]]:
    batches = []
    while pieces := waiting.take(now):
        batches.append([(piece.member, piece.start, piece.stop) for piece in pieces])
    return batches


@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab")), max_size=20), st.integers(1, 7))
def test_batches_hold_every_document_once_in_order_and_never_too_many(arrivals: list[tuple[int, str]], size: int) -> None:
    waiting, options = Waiting(), Batching(size)
    members = [member(count, options, arrived=n, key=key) for n, (count, key) in enumerate(arrivals)]
    for one in members:
        waiting.add(one)
    batches = drained(waiting, now=100.0)
    assert not waiting and waiting.rest_s(100.0) is None
    for batch in batches:
        assert sum(stop - start for _, start, stop in batch) <= size
        assert len({one.key for one, _, _ in batch}) == 1
    for key in "ab":
        flat = [piece for batch in batches for piece in batch if piece[0].key == key]
        given_out = [(one, n) for one, start, stop in flat for n in range(start, stop)]
        assert given_out == [(one, n) for one in members if one.key == key for n in range(len(one.sizes))]
        assert {one for one, _, _ in flat} == {one for one in members if one.key == key}, "empty requests have a batch too"
        full = [sum(stop - start for _, start, stop in batch) for batch in batches if batch[0][0].key == key]
        assert all(count == size for count in full[:-1]), "only the last batch may be short"


def test_pieces_are_slices_of_the_request() -> None:
    waiting = Waiting()
    waiting.add(member(5, Batching(2)))
    batches = [waiting.take(0.0) for _ in range(3)]
    assert [[doc.text for doc in batch[0].docs] for batch in batches] == [["0", "1"], ["2", "3"], ["4"]]
    assert not waiting.take(0.0)


def test_the_oldest_batch_goes_first() -> None:
    waiting, options = Waiting(), Batching(4)
    for arrived, key in ((1.0, "late"), (0.0, "early"), (2.0, "early")):
        waiting.add(member(1, options, arrived, key))
    assert waiting.due_since(9.0) == 0.0
    assert [[one.key for one, _, _ in batch] for batch in drained(waiting, 9.0)] == [["early", "early"], ["late"]]


def test_without_greed_a_batch_waits_until_it_is_full_or_its_oldest_request_is_too_old() -> None:
    waiting, options = Waiting(), Batching(4, timeout_s=0.5, greedy=False)
    assert not waiting.add(member(1, options, arrived=10.0))
    assert not waiting.add(member(2, options, arrived=10.4))
    assert waiting.rest_s(10.4) == pytest.approx(0.1)
    assert waiting.due_since(10.4) is None and not waiting.take(10.4)
    assert waiting.due_since(10.5) == 10.0
    assert waiting.add(member(1, options, arrived=10.41))
    assert waiting.rest_s(10.41) == 0.0
    assert [len(batch) for batch in drained(waiting, 10.41)] == [3]
    waiting.add(member(1, options, arrived=11.0))
    assert len(waiting.take(11.5)) == 1


def test_a_draining_worker_waits_for_nobody() -> None:
    waiting = Waiting()
    waiting.add(member(1, Batching(4, timeout_s=math.inf, greedy=False), arrived=1.0))
    assert not waiting.take(1e9) and waiting.rest_s(2.0) == MAX_REST_S
    waiting.hurry = True
    assert waiting.rest_s(2.0) == 0.0 and len(waiting.take(2.0)) == 1


@pytest.mark.feature("DB-09")
def test_flush_all_hands_over_everything_that_waits() -> None:
    waiting, options = Waiting(), Batching(2, flush_all=True)
    assert not any([waiting.add(member(3, options)) for _ in range(3)]), "more is welcome, also when there is enough"
    assert [[stop - start for _, start, stop in batch] for batch in drained(waiting)] == [[3, 3, 3]]


def test_sizes_of_a_custom_metric_fill_the_batch_and_too_large_documents_go_alone() -> None:
    waiting, options = Waiting(), Batching(10)
    waiting.add(member(4, options, sizes=[4, 5, 2, 30]))
    waiting.add(member(2, options, 1.0, sizes=[3, 7]))
    assert [[(start, stop) for _, start, stop in batch] for batch in drained(waiting, 1.0)] == [
        [(0, 2)],
        [(2, 3)],
        [(3, 4)],
        [(0, 2)],
    ]


def test_what_is_left_of_a_failed_request_is_not_run() -> None:
    waiting, options = Waiting(), Batching(2)
    failed, other = member(5, options), member(1, options, 1.0)
    waiting.add(failed), waiting.add(other)
    waiting.take(1.0)
    failed.closed = True
    assert drained(waiting, 1.0) == [[(other, 0, 1)]] and not waiting
