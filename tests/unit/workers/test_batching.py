"""Who shares a batch, and what each request gets out of it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.codec import Decoded
from streamflow.broker.envelope import JSON, Envelope
from streamflow.broker.errors import Code
from streamflow.workers.batch_runner import BatchRunner, runner_for
from streamflow.workers.batching import MAX_AHEAD, Batcher, Ended, first_ahead, shared_context
from streamflow.workers.decorators import Batching
from streamflow.workers.executor import Executor, dynamic_batching, requests
from streamflow.workers.invoke import Context, Invoker
from streamflow.workers.jobs import Dropped, Failure, Job, Outcome, Output
from streamflow.workers.lanes import Pace
from streamflow.workers.merging import merge, parameters_key, split
from streamflow.workers.process import Processor
from streamflow.workers.runner import Runner
from streamflow.workers.waiting import MAX_REST_S, Member, Waiting
from tests.waiting import eventually

pytestmark = pytest.mark.feature("DB-04", "DB-08")

Texts = DocList[TextDoc]


# merging


def docs_of(texts: list[str]) -> DocList[TextDoc]:
    return Texts(TextDoc(text=text) for text in texts)


@given(st.lists(st.lists(st.text(max_size=3), max_size=5), min_size=1, max_size=8))
def test_split_undoes_merge(texts: list[list[str]]) -> None:
    lists = [docs_of(one) for one in texts]
    merged = merge(lists)
    assert merged.doc_type is TextDoc and [doc.text for doc in merged] == [text for one in texts for text in one]
    again = split(merged, [len(one) for one in lists])
    assert [list(map(id, one)) for one in again] == [list(map(id, one)) for one in lists]
    assert all(one.doc_type is TextDoc for one in again)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), st.dictionaries(st.text(max_size=3), VALUES, max_size=3))
def test_parameters_have_equal_keys_just_when_user_code_cannot_tell_them_apart(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (parameters_key(one) == parameters_key(other)) == same(one, other)
    assert parameters_key(one) == parameters_key(dict(reversed(one.items())))
    assert isinstance(hash(parameters_key(one)), int)


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), (None, "None"), ([], {}), ("1", 1), (b"a", "a"), ([1, 2], [2, 1])])
def test_values_that_look_alike_do_not_share_a_call(one: Any, other: Any) -> None:
    assert parameters_key({"x": one}) != parameters_key({"x": other})


# waiting


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


# one call for many requests


class Price(BaseDoc):
    cents: int


class Calls(Executor):
    """Notes what each call got."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calls: list[list[str]] = []
        self.parameters: list[dict[str, Any]] = []
        self.contexts: list[Context] = []

    def note(self, docs: DocList[TextDoc]) -> None:
        self.calls.append([doc.text for doc in docs])

    @requests(on="/in_place")
    @dynamic_batching(preferred_batch_size=4)
    def in_place(self, docs: DocList[TextDoc], parameters: dict[str, Any], **kwargs: Any) -> None:
        self.note(docs)
        self.parameters.append(parameters)
        for doc in docs:
            doc.text = doc.text.upper() + parameters.get("suffix", "")

    @requests(on="/priced")
    @dynamic_batching(preferred_batch_size=4)
    def priced(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[Price]:
        self.note(docs)
        return DocList[Price](Price(cents=len(doc.text)) for doc in docs)

    @requests(on="/reversed")
    @dynamic_batching(preferred_batch_size=4)
    def reversed_list(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return Texts(TextDoc(text=doc.text[::-1]) for doc in docs)

    @requests(on="/poison")
    @dynamic_batching(preferred_batch_size=32)
    def poison(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.note(docs)
        for doc in docs:
            if "poison" in doc.text:
                raise ValueError(f"cannot take {doc.text}")
            doc.text += "!"

    @requests(on="/filtered")
    @dynamic_batching(preferred_batch_size=8)
    def filtered(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return Texts(doc for doc in docs if "drop" not in doc.text)

    @requests(on="/grown")
    @dynamic_batching
    def grown(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        docs.append(TextDoc(text="one more"))

    @requests(on="/dict")
    @dynamic_batching(preferred_batch_size=4)
    def counted(self, docs: DocList[TextDoc], **kwargs: Any) -> dict[str, Any]:
        self.note(docs)
        for doc in docs:
            doc.text += "?"
        return {doc.text: len(docs) for doc in docs}

    @requests(on="/text")
    @dynamic_batching
    def text(self, docs: DocList[TextDoc], **kwargs: Any) -> Any:
        return "text"

    @requests(on="/context")
    @dynamic_batching
    def context(self, docs: DocList[TextDoc], context: Context, **kwargs: Any) -> None:
        self.contexts.append(context)

    @requests(on="/metric")
    @dynamic_batching(preferred_batch_size=10, use_custom_metric=True, custom_metric=lambda docs: sum(int(doc.text) for doc in docs))
    def metric(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.note(docs)

    @requests(on="/legacy")
    @dynamic_batching
    def legacy(self, docs, **kwargs):  # type: ignore[no-untyped-def]
        for doc in docs:
            doc.text = "seen"

    @requests(on="/async")
    @dynamic_batching(preferred_batch_size=4)
    async def slow(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.note(docs)
        await asyncio.sleep(0)
        for doc in docs:
            if "poison" in doc.text:
                raise ValueError("cannot take it")
            doc.text = doc.text.upper()


class Bench:
    """A batcher for one executor, fed by hand."""

    def __init__(self, executor: Executor, **options: Any) -> None:
        self.invoker = Invoker(executor, **options)
        self.processor = Processor(self.invoker, "exec", "exec/rep-0")
        self.batcher = Batcher(self.processor, self.invoker)
        self.waiting = Waiting()
        self.outcomes: dict[str, Outcome] = {}
        self.rounds: list[list[str]] = []

    def job(self, endpoint: str, *texts: str, attempt: int = 1, deadline: float = 0.0, docs: Any = None, **parameters: Any) -> Job:
        data = [{"text": text} for text in texts] if docs is None else docs
        body = orjson.dumps({"data": data, "parameters": parameters})
        envelope = Envelope(
            f"r{time.monotonic_ns()}", "f", hop="exec", endpoint=endpoint, content_type=JSON, accept=JSON, body=body, deadline=deadline
        )
        delivery: Any = SimpleNamespace(
            attempt=attempt, fencing_token=len(self.outcomes) + 3, ack_subject=envelope.request_id, subject=b"work"
        )
        return Job(delivery, envelope, self.invoker.resolve(endpoint), JSON)

    def admit(self, *jobs: Job) -> None:
        for n, job in enumerate(jobs):
            found = self.batcher.admit(job, float(n))
            if isinstance(found, Member):
                self.waiting.add(found)
            else:
                self.ended([(job, found)])

    def ended(self, ended: Ended) -> None:
        self.rounds.append([job.envelope.request_id for job, _ in ended])
        for job, outcome in ended:
            assert job.envelope.request_id not in self.outcomes, "a request ends once"
            self.outcomes[job.envelope.request_id] = outcome

    def run(self, *jobs: Job) -> list[Outcome]:
        self.admit(*jobs)
        while pieces := self.waiting.take(1e9):
            for ended in self.batcher.run(pieces):
                self.ended(ended)
        return [self.outcomes[job.envelope.request_id] for job in jobs]


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def bench(calls: Calls) -> Bench:
    return Bench(calls)


def fields(outcome: Outcome, name: str = "text") -> list[Any]:
    assert isinstance(outcome, Output), outcome
    return [doc[name] for doc in orjson.loads(bytes(outcome.body))]


def error(outcome: Outcome) -> str:
    assert isinstance(outcome, Failure), outcome
    return outcome.status.description


def test_each_request_gets_its_own_documents_in_order(bench: Bench, calls: Calls) -> None:
    outcomes = bench.run(bench.job("/in_place", "a", "b"), bench.job("/in_place", "c"), bench.job("/in_place", "d", "e", "f"))
    assert calls.calls == [["a", "b", "c", "d"], ["e", "f"]]
    assert [fields(outcome) for outcome in outcomes] == [["A", "B"], ["C"], ["D", "E", "F"]]


def test_a_request_larger_than_a_batch_is_put_together_again(bench: Bench, calls: Calls) -> None:
    texts = [f"x{n}" for n in range(11)]
    large, small = bench.run(bench.job("/in_place", *texts), bench.job("/in_place", "y"))
    assert [len(one) for one in calls.calls] == [4, 4, 4]
    assert fields(large) == [text.upper() for text in texts] and fields(small) == ["Y"]


def test_documents_of_another_type_are_handed_out_by_position(bench: Bench) -> None:
    outcomes = bench.run(bench.job("/priced", "a", "bb"), bench.job("/priced"), bench.job("/priced", "ccc", "dddd", "eeeee"))
    assert [fields(outcome, "cents") for outcome in outcomes] == [[1, 2], [], [3, 4, 5]]


def test_a_new_list_keeps_the_order(bench: Bench) -> None:
    outcomes = bench.run(*(bench.job("/reversed", f"a{n}", f"b{n}") for n in range(5)))
    assert [fields(outcome) for outcome in outcomes] == [[f"{n}a", f"{n}b"] for n in range(5)]


def test_requests_without_documents_are_called_too(bench: Bench, calls: Calls) -> None:
    assert [fields(outcome) for outcome in bench.run(bench.job("/in_place"), bench.job("/in_place"))] == [[], []]
    assert calls.calls == [[]]


def test_fields_that_the_type_does_not_know_stay_with_their_request(bench: Bench) -> None:
    one, other, none = (
        bench.job("/in_place", docs=[{"text": "a", "colour": "red"}, {"text": "b", "colour": "blue"}]),
        bench.job("/in_place", docs=[{"text": "c", "shape": [1, 2]}]),
        bench.job("/in_place", docs=[{"text": "d"}] * 3),
    )
    first, second, third = (orjson.loads(bytes(outcome.body)) for outcome in bench.run(one, other, none) if isinstance(outcome, Output))
    assert [(doc["text"], doc["colour"]) for doc in first] == [("A", "red"), ("B", "blue")]
    assert second[0]["shape"] == [1, 2] and "colour" not in second[0]
    assert len(third) == 3 and not any("colour" in doc or "shape" in doc for doc in third)


def test_an_endpoint_without_annotations_batches_legacy_documents(bench: Bench) -> None:
    outcomes = bench.run(bench.job("/legacy", docs=[{"text": "a", "tags": {"k": 1}}]), bench.job("/legacy", docs=[{"text": "b"}]))
    assert [fields(outcome) for outcome in outcomes] == [["seen"], ["seen"]]
    assert fields(outcomes[0], "tags") == [{"k": 1}]


@pytest.mark.feature("DB-06")
def test_only_equal_parameters_as_the_executor_sees_them_share_a_call(bench: Bench, calls: Calls) -> None:
    outcomes = bench.run(
        bench.job("/in_place", "a", suffix="1"),
        bench.job("/in_place", "b", suffix="2"),
        bench.job("/in_place", "c", exec__suffix="1", suffix="9"),
        bench.job("/in_place", "d", suffix="1", other__suffix="7"),
    )
    assert calls.calls == [["a", "c", "d"], ["b"]]
    assert calls.parameters == [{"suffix": "1"}, {"suffix": "2"}]
    assert [fields(outcome) for outcome in outcomes] == [["A1"], ["B2"], ["C1"], ["D1"]]
    assert [outcome.parameters for outcome in outcomes if isinstance(outcome, Output)][2:] == [
        {"exec__suffix": "1", "suffix": "9"},
        {"suffix": "1", "other__suffix": "7"},
    ]


def test_endpoints_do_not_share_a_call(bench: Bench, calls: Calls) -> None:
    bench.run(bench.job("/in_place", "a"), bench.job("/poison", "b"), bench.job("/in_place", "c"))
    assert calls.calls == [["a", "c"], ["b"]]


@given(st.integers(1, 32), st.data())
def test_only_the_requests_at_fault_fail(count: int, data: st.DataObject) -> None:
    calls = Calls()
    bench = Bench(calls)
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=4))
    jobs = [bench.job("/poison", "poison" if n in bad else f"ok{n}") for n in range(count)]
    for n, outcome in enumerate(bench.run(*jobs)):
        if n in bad:
            assert error(outcome) == "ValueError('cannot take poison')"
        else:
            assert fields(outcome) == [f"ok{n}!"], "a document that was run again is a fresh one"
    seen = [sum(text == f"ok{n}" for one in calls.calls for text in one) for n in range(count) if n not in bad]
    assert all(times <= 1 + math.ceil(math.log2(count)) for times in seen)


def test_neighbours_do_not_wait_for_the_search(bench: Bench) -> None:
    jobs = [bench.job("/poison", "poison" if n == 7 else "ok") for n in range(8)]
    bench.run(*jobs)
    first = {request_id for ended in bench.rounds[:2] for request_id in ended}
    assert first == {job.envelope.request_id for job in jobs[:4]}


def test_one_bad_document_fails_its_request_and_the_rest_of_it_is_not_run(bench: Bench, calls: Calls) -> None:
    large, other = bench.run(bench.job("/poison", "poison", *(["x"] * 79)), bench.job("/poison", "y"))
    assert error(large) == "ValueError('cannot take poison')" and fields(other) == ["y!"]
    assert [len(one) for one in calls.calls] == [32, 1]


def test_a_wrong_number_of_documents_names_the_endpoint_and_fails_whom_it_concerns(bench: Bench) -> None:
    good, bad, other = bench.run(*(bench.job("/filtered", *texts) for texts in (["a", "b"], ["c", "drop"], ["d"])))
    assert fields(good) == ["a", "b"] and fields(other) == ["d"]
    assert "Calls.filtered (/filtered) gave 1 documents for 2" in error(bad) and error(bad).startswith("TypeError")
    assert "gave 2 documents for 1" in error(bench.run(bench.job("/grown", "a"))[0])


def test_a_value_that_is_no_documents_is_an_error_for_everybody(bench: Bench) -> None:
    assert all("returned str" in error(outcome) for outcome in bench.run(bench.job("/text", "a"), bench.job("/text", "b")))


def test_a_dict_tells_nobody_about_the_documents_of_others(bench: Bench, calls: Calls) -> None:
    outcomes = bench.run(*(bench.job("/dict", text) for text in "abc"))
    assert [outcome.results for outcome in outcomes if isinstance(outcome, Output)] == [{"exec/rep-0": {f"{text}?": 1}} for text in "abc"]
    assert [fields(outcome) for outcome in outcomes] == [["a?"], ["b?"], ["c?"]]
    bench.run(bench.job("/dict", "d"), bench.job("/dict", "e"))
    assert calls.calls == [["a", "b", "c"], ["a"], ["b"], ["c"], ["d"], ["e"]], "an endpoint that gives dicts batches no more"


def test_the_dicts_of_one_large_request_are_merged(bench: Bench) -> None:
    [outcome] = bench.run(bench.job("/dict", *"abcdef"))
    assert isinstance(outcome, Output) and outcome.results == {"exec/rep-0": {f"{text}?": 4 if text < "e" else 2 for text in "abcdef"}}


def test_what_is_not_wanted_any_more_is_taken_out_before_the_batch_runs(bench: Bench, calls: Calls) -> None:
    kept, cancelled, late = bench.job("/in_place", "a"), bench.job("/in_place", "b"), bench.job("/in_place", "c", deadline=time.time() + 60)
    gone = bench.job("/in_place", "d", deadline=time.time() - 1)
    bench.admit(kept, cancelled, late, gone)
    cancelled.cancelled = True
    late.envelope = late.envelope._replace(deadline=time.time() - 1)
    bench.run()
    assert calls.calls == [["a"]]
    by_job = [bench.outcomes[job.envelope.request_id] for job in (kept, cancelled, late, gone)]
    assert fields(by_job[0]) == ["A"] and by_job[1] == Dropped()
    assert [outcome.status.code for outcome in by_job[2:] if isinstance(outcome, Failure)] == [Code.DEADLINE_EXCEEDED] * 2
    assert all(0 < job.started <= job.ended for job in (kept, late, gone))


def test_a_body_that_cannot_be_read_concerns_nobody_else(bench: Bench, calls: Calls) -> None:
    bad = bench.job("/in_place", docs=[{"text": 5}])
    outcomes = bench.run(bench.job("/in_place", "a"), bad, bench.job("/in_place", "b"))
    assert "data[0].text" in error(outcomes[1])
    assert calls.calls == [["a", "b"]]


def test_a_redelivered_request_stands_alone(bench: Bench, calls: Calls) -> None:
    bench.run(bench.job("/in_place", "a"), bench.job("/in_place", "b", attempt=2), bench.job("/in_place", "c"))
    assert calls.calls == [["a", "c"], ["b"]]


def test_nothing_is_run_again_in_a_process_that_is_to_end(calls: Calls) -> None:
    bench = Bench(calls, exit_on_exceptions=["ValueError"])
    outcomes = bench.run(bench.job("/poison", "a"), bench.job("/poison", "poison"))
    assert len(calls.calls) == 1
    assert all(isinstance(outcome, Failure) and outcome.exit_worker for outcome in outcomes)


def test_the_context_of_a_shared_call_is_nobodys_own(bench: Bench, calls: Calls) -> None:
    soon = time.time() + 50
    one, two = bench.job("/context", "a", deadline=soon + 9), bench.job("/context", "b", deadline=soon)
    one.delivery.fencing_token, two.delivery.fencing_token = 8, 5
    bench.run(one, two)
    assert calls.contexts == [shared_context([one, two])] == [Context("", 1, soon, 5, "/context")]
    alone = bench.job("/context", "c")
    bench.run(alone)
    assert calls.contexts[1].request_id == alone.envelope.request_id


@pytest.mark.feature("DB-09")
def test_a_custom_metric_decides_how_many_documents_share_a_call(bench: Bench, calls: Calls) -> None:
    outcomes = bench.run(bench.job("/metric", "4", "5"), bench.job("/metric", "2"), bench.job("/metric", "x"), bench.job("/metric", "-1"))
    assert calls.calls == [["4", "5"], ["2"]]
    assert error(outcomes[2]).startswith("ValueError") and "custom_metric gave -1.0" in error(outcomes[3])


def test_enough_requests_are_held_for_two_batches_whatever_their_size(bench: Bench) -> None:
    assert bench.batcher.ahead == 64  # /poison: two times 32 requests of one document
    for _ in range(20):
        bench.run(bench.job("/poison", *"abcdefgh"))
    assert bench.batcher._ahead["/poison"] == 8
    for _ in range(200):
        bench.run(bench.job("/poison"))
    assert bench.batcher._ahead["/poison"] <= MAX_AHEAD


def test_a_worker_holds_what_fills_two_batches_before_it_knows_any_request(calls: Calls) -> None:
    specs = Bench(calls).invoker.endpoints
    assert first_ahead(specs["/poison"]) == 64 and first_ahead(specs["/metric"]) == 20
    pace = Pace(1, False, first_ahead(specs["/poison"]))
    assert pace.capacity == 65
    for _ in range(100):
        pace.ended(0.5, 3)
    assert pace.capacity == 4, "large requests: fewer of them fill two batches"
    for _ in range(100):
        pace.ended(0.0001, 3)
    assert pace.capacity > 20, "or about 5 ms of work, when that is more"


def test_an_output_that_cannot_be_encoded_fails_its_own_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = bench.processor.encode

    def encode(job: Job, *rest: Any) -> Output:
        if b"bad" in bytes(job.envelope.body):
            raise TypeError("not JSON")
        return real(job, *rest)

    monkeypatch.setattr(bench.processor, "encode", encode)
    one, bad = bench.run(bench.job("/in_place", "a"), bench.job("/in_place", "bad"))
    assert fields(one) == ["A"] and isinstance(bad, Failure) and bad.status.code is Code.INTERNAL


async def test_async_endpoints_are_divided_in_the_same_way(bench: Bench, calls: Calls) -> None:
    jobs = [bench.job("/async", text) for text in ("a", "poison", "b", "c")]
    bench.admit(*jobs)
    async for ended in bench.batcher.arun(bench.waiting.take(1e9)):
        bench.ended(ended)
    outcomes = [bench.outcomes[job.envelope.request_id] for job in jobs]
    assert error(outcomes[1]).startswith("ValueError")
    assert [fields(outcomes[n]) for n in (0, 2, 3)] == [["A"], ["B"], ["C"]]
    assert calls.calls[0] == ["a", "poison", "b", "c"] and len(calls.calls) == 5


# where batches run


class Gate(Executor):
    """Endpoints that wait until they may go on."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calls: list[list[str]] = []
        self.release = threading.Semaphore(0)
        self.arelease = asyncio.Semaphore(0)

    @requests(on="/sync")
    @dynamic_batching(preferred_batch_size=4)
    def sync(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])
        assert self.release.acquire(timeout=20)

    @requests(on="/patient")
    @dynamic_batching(preferred_batch_size=3, timeout=60_000, greedy=False)
    def patient(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])

    @requests(on="/short")
    @dynamic_batching(preferred_batch_size=3, timeout=50, greedy=False)
    def short(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])

    @requests(on="/plain")
    def plain(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])

    @requests(on="/async")
    @dynamic_batching(preferred_batch_size=4)
    async def slow(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])
        await self.arelease.acquire()

    @requests(on="/apatient")
    @dynamic_batching(preferred_batch_size=3, timeout=60_000, greedy=False)
    async def apatient(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])

    @requests(on="/ashort")
    @dynamic_batching(preferred_batch_size=3, timeout=50, greedy=False)
    async def ashort(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])


class Stage:
    """A `BatchRunner` whose outcomes are collected."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.bench = Bench(self.gate)
        self.outcomes: list[tuple[str, Outcome]] = []
        self.turns = 0
        self.runner = BatchRunner(self.bench.invoker, self.bench.processor, self.done, "test")

    def done(self, job: Job, outcome: Outcome) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.outcomes.append((job.envelope.request_id, outcome))

    def submit(self, endpoint: str, *texts: str) -> Job:
        job = self.bench.job(endpoint, *texts)
        self.runner.submit(job)
        return job

    def go_on(self, calls: int = 1) -> None:
        self.gate.release.release(calls)
        for _ in range(calls):
            self.gate.arelease.release()

    async def called(self, *calls: list[str]) -> None:
        await eventually(lambda: len(self.gate.calls) >= len(calls), what=f"{calls}, have {self.gate.calls}")
        assert self.gate.calls == list(calls)

    async def ended(self, count: int) -> None:
        await eventually(lambda: len(self.outcomes) >= count, what=f"{count} outcomes, have {self.outcomes}")
        assert len(self.outcomes) == count and all(isinstance(outcome, Output) for _, outcome in self.outcomes)


@pytest.fixture
async def stage() -> Any:
    stage = Stage()
    yield stage
    stage.go_on(100)
    stage.runner.stop()
    await asyncio.to_thread(stage.runner._thread.join, 10)
    assert not stage.runner._thread.is_alive()


@pytest.mark.parametrize("endpoint", ["/sync", "/async"])
async def test_the_idle_executor_takes_what_is_there_and_the_next_batch_gathers_meanwhile(stage: Stage, endpoint: str) -> None:
    stage.submit(endpoint, "a")
    await stage.called(["a"])
    for text in "bcdefg":
        stage.submit(endpoint, text)
    stage.go_on()
    await stage.called(["a"], ["b", "c", "d", "e"])
    stage.go_on()
    await stage.called(["a"], ["b", "c", "d", "e"], ["f", "g"])
    stage.go_on()
    await stage.ended(7)


@pytest.mark.parametrize("endpoint", ["/patient", "/apatient"])
async def test_without_greed_a_full_batch_does_not_wait_for_the_timeout(stage: Stage, endpoint: str) -> None:
    stage.submit(endpoint, "a")
    stage.submit(endpoint, "b", "c", "d")
    await stage.called(["a", "b", "c"])
    assert len(stage.outcomes) <= 1
    stage.submit("/plain", "p")
    await stage.called(["a", "b", "c"], ["p"])
    stage.runner.hurry()
    await stage.called(["a", "b", "c"], ["p"], ["d"])
    await stage.ended(3)


@pytest.mark.feature("DB-05")
@pytest.mark.parametrize("endpoint", ["/short", "/ashort"])
async def test_without_greed_the_oldest_request_waits_at_most_the_timeout(stage: Stage, endpoint: str) -> None:
    started = time.monotonic()
    stage.submit(endpoint, "a")
    stage.submit(endpoint, "b")
    await stage.ended(2)
    assert 0.05 <= time.monotonic() - started < 5 and stage.gate.calls == [["a", "b"]]


@pytest.mark.feature("DB-10")
async def test_stopping_ends_what_waits_first(stage: Stage) -> None:
    stage.submit("/sync", "a")
    await stage.called(["a"])
    stage.submit("/patient", "b")
    stage.submit("/plain", "c")
    stage.runner.stop()
    stage.go_on()
    await stage.ended(3)
    assert stage.gate.calls == [["a"], ["b"], ["c"]]


async def test_what_came_first_runs_first(stage: Stage) -> None:
    stage.submit("/sync", "a")
    await stage.called(["a"])
    stage.submit("/plain", "b")
    stage.submit("/sync", "c")
    stage.submit("/plain", "d")
    stage.submit("/sync", "e")
    stage.go_on(2)
    await stage.ended(5)
    assert stage.gate.calls == [["a"], ["b"], ["c", "e"], ["d"]]


async def test_endpoints_that_nobody_has_pass_through(stage: Stage) -> None:
    job = stage.submit("/unknown", "a")
    await stage.ended(1)
    assert stage.outcomes[0][0] == job.envelope.request_id


async def test_all_of_a_batch_comes_back_in_one_turn_of_the_loop(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    wakes: list[int] = []
    wake: Callable[[], None] = stage.runner._wake
    monkeypatch.setattr(stage.runner, "_wake", lambda: (wakes.append(1), wake()))
    stage.submit("/sync", "a")
    await stage.called(["a"])
    for text in "bcde":
        stage.submit("/sync", text)
    stage.go_on()
    await stage.ended(1)
    stage.go_on()
    await stage.ended(5)
    assert len(wakes) == 2


async def test_an_async_call_is_abandoned_when_the_worker_stops(stage: Stage) -> None:
    stage.submit("/async", "a")
    await stage.called(["a"])
    stage.runner.stop()
    await eventually(lambda: stage.runner._lanes["/async"]._task is None)
    assert not stage.outcomes


async def test_an_executor_without_batching_has_the_plain_runner() -> None:
    class Plain(Executor):
        @requests
        def plain(self, docs: DocList[TextDoc], **kwargs: Any) -> None: ...

    bench = Bench(Plain())
    runner = runner_for(bench.invoker, bench.processor, lambda job, outcome: None, "test")
    assert type(runner) is Runner and runner.ahead == 0
    runner.hurry()
    runner.stop()
    assert type(runner_for(Bench(Calls()).invoker, bench.processor, lambda job, outcome: None, "test")) is BatchRunner
