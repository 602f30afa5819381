"""One call for many requests: who shares it, and what each gets out of it."""

from __future__ import annotations

import math
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.errors import Code
from streamflow.workers.batching import MAX_AHEAD, first_ahead, shared_context
from streamflow.workers.executions import Dropped, Execution, Failure, Outcome, Output
from streamflow.workers.invoke import Context
from streamflow.workers.lanes import Pace
from tests.unit.workers.bench import Bench, Calls

pytestmark = pytest.mark.feature("DB-04", "DB-08")


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
    outcomes = bench.run(
        bench.execution("/in_place", "a", "b"), bench.execution("/in_place", "c"), bench.execution("/in_place", "d", "e", "f")
    )
    assert calls.calls == [["a", "b", "c", "d"], ["e", "f"]]
    assert [fields(outcome) for outcome in outcomes] == [["A", "B"], ["C"], ["D", "E", "F"]]


def test_a_request_larger_than_a_batch_is_put_together_again(bench: Bench, calls: Calls) -> None:
    texts = [f"x{n}" for n in range(11)]
    large, small = bench.run(bench.execution("/in_place", *texts), bench.execution("/in_place", "y"))
    assert [len(one) for one in calls.calls] == [4, 4, 4]
    assert fields(large) == [text.upper() for text in texts] and fields(small) == ["Y"]


def test_documents_of_another_type_are_handed_out_by_position(bench: Bench) -> None:
    outcomes = bench.run(
        bench.execution("/priced", "a", "bb"), bench.execution("/priced"), bench.execution("/priced", "ccc", "dddd", "eeeee")
    )
    assert [fields(outcome, "cents") for outcome in outcomes] == [[1, 2], [], [3, 4, 5]]


def test_a_new_list_keeps_the_order(bench: Bench) -> None:
    outcomes = bench.run(*(bench.execution("/reversed", f"a{n}", f"b{n}") for n in range(5)))
    assert [fields(outcome) for outcome in outcomes] == [[f"{n}a", f"{n}b"] for n in range(5)]


def test_requests_without_documents_are_called_too(bench: Bench, calls: Calls) -> None:
    assert [fields(outcome) for outcome in bench.run(bench.execution("/in_place"), bench.execution("/in_place"))] == [[], []]
    assert calls.calls == [[]]


def test_fields_that_the_type_does_not_know_stay_with_their_request(bench: Bench) -> None:
    one, other, none = (
        bench.execution("/in_place", docs=[{"text": "a", "colour": "red"}, {"text": "b", "colour": "blue"}]),
        bench.execution("/in_place", docs=[{"text": "c", "shape": [1, 2]}]),
        bench.execution("/in_place", docs=[{"text": "d"}] * 3),
    )
    first, second, third = (orjson.loads(bytes(outcome.body)) for outcome in bench.run(one, other, none) if isinstance(outcome, Output))
    assert [(doc["text"], doc["colour"]) for doc in first] == [("A", "red"), ("B", "blue")]
    assert second[0]["shape"] == [1, 2] and "colour" not in second[0]
    assert len(third) == 3 and not any("colour" in doc or "shape" in doc for doc in third)


def test_an_endpoint_without_annotations_batches_legacy_documents(bench: Bench) -> None:
    outcomes = bench.run(
        bench.execution("/legacy", docs=[{"text": "a", "tags": {"k": 1}}]), bench.execution("/legacy", docs=[{"text": "b"}])
    )
    assert [fields(outcome) for outcome in outcomes] == [["seen"], ["seen"]]
    assert fields(outcomes[0], "tags") == [{"k": 1}]


@pytest.mark.feature("DB-06")
def test_only_equal_parameters_as_the_executor_sees_them_share_a_call(bench: Bench, calls: Calls) -> None:
    outcomes = bench.run(
        bench.execution("/in_place", "a", suffix="1"),
        bench.execution("/in_place", "b", suffix="2"),
        bench.execution("/in_place", "c", exec__suffix="1", suffix="9"),
        bench.execution("/in_place", "d", suffix="1", other__suffix="7"),
    )
    assert calls.calls == [["a", "c", "d"], ["b"]]
    assert calls.parameters == [{"suffix": "1"}, {"suffix": "2"}]
    assert [fields(outcome) for outcome in outcomes] == [["A1"], ["B2"], ["C1"], ["D1"]]
    assert [outcome.parameters for outcome in outcomes if isinstance(outcome, Output)][2:] == [
        {"exec__suffix": "1", "suffix": "9"},
        {"suffix": "1", "other__suffix": "7"},
    ]


def test_endpoints_do_not_share_a_call(bench: Bench, calls: Calls) -> None:
    bench.run(bench.execution("/in_place", "a"), bench.execution("/poison", "b"), bench.execution("/in_place", "c"))
    assert calls.calls == [["a", "c"], ["b"]]


@given(st.integers(1, 32), st.data())
def test_only_the_requests_at_fault_fail(count: int, data: st.DataObject) -> None:
    calls = Calls()
    bench = Bench(calls)
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=4))
    executions = [bench.execution("/poison", "poison" if n in bad else f"ok{n}") for n in range(count)]
    for n, outcome in enumerate(bench.run(*executions)):
        if n in bad:
            assert error(outcome) == "ValueError('cannot take poison')"
        else:
            assert fields(outcome) == [f"ok{n}!"], "a document that was run again is a fresh one"
    seen = [sum(text == f"ok{n}" for one in calls.calls for text in one) for n in range(count) if n not in bad]
    assert all(times <= 1 + math.ceil(math.log2(count)) for times in seen)


def test_neighbours_do_not_wait_for_the_search(bench: Bench) -> None:
    executions = [bench.execution("/poison", "poison" if n == 7 else "ok") for n in range(8)]
    bench.run(*executions)
    first = {request_id for ended in bench.rounds[:2] for request_id in ended}
    assert first == {execution.envelope.request_id for execution in executions[:4]}


def test_one_bad_document_fails_its_request_and_the_rest_of_it_is_not_run(bench: Bench, calls: Calls) -> None:
    large, other = bench.run(bench.execution("/poison", "poison", *(["x"] * 79)), bench.execution("/poison", "y"))
    assert error(large) == "ValueError('cannot take poison')" and fields(other) == ["y!"]
    assert [len(one) for one in calls.calls] == [32, 1]


def test_a_wrong_number_of_documents_names_the_endpoint_and_fails_whom_it_concerns(bench: Bench) -> None:
    good, bad, other = bench.run(*(bench.execution("/filtered", *texts) for texts in (["a", "b"], ["c", "drop"], ["d"])))
    assert fields(good) == ["a", "b"] and fields(other) == ["d"]
    assert "Calls.filtered (/filtered) gave 1 documents for 2" in error(bad) and error(bad).startswith("TypeError")
    assert "gave 2 documents for 1" in error(bench.run(bench.execution("/grown", "a"))[0])


def test_a_value_that_is_no_documents_is_an_error_for_everybody(bench: Bench) -> None:
    assert all("returned str" in error(outcome) for outcome in bench.run(bench.execution("/text", "a"), bench.execution("/text", "b")))


def test_a_dict_tells_nobody_about_the_documents_of_others(bench: Bench, calls: Calls) -> None:
    outcomes = bench.run(*(bench.execution("/dict", text) for text in "abc"))
    assert [outcome.results for outcome in outcomes if isinstance(outcome, Output)] == [{"exec/rep-0": {f"{text}?": 1}} for text in "abc"]
    assert [fields(outcome) for outcome in outcomes] == [["a?"], ["b?"], ["c?"]]
    bench.run(bench.execution("/dict", "d"), bench.execution("/dict", "e"))
    assert calls.calls == [["a", "b", "c"], ["a"], ["b"], ["c"], ["d"], ["e"]], "an endpoint that gives dicts batches no more"


def test_the_dicts_of_one_large_request_are_merged(bench: Bench) -> None:
    [outcome] = bench.run(bench.execution("/dict", *"abcdef"))
    assert isinstance(outcome, Output) and outcome.results == {"exec/rep-0": {f"{text}?": 4 if text < "e" else 2 for text in "abcdef"}}


def test_what_is_not_wanted_any_more_is_taken_out_before_the_batch_runs(bench: Bench, calls: Calls) -> None:
    kept, cancelled, late = (
        bench.execution("/in_place", "a"),
        bench.execution("/in_place", "b"),
        bench.execution("/in_place", "c", deadline=time.time() + 60),
    )
    gone = bench.execution("/in_place", "d", deadline=time.time() - 1)
    bench.admit(kept, cancelled, late, gone)
    cancelled.cancelled = True
    late.envelope = late.envelope._replace(deadline=time.time() - 1)
    bench.run()
    assert calls.calls == [["a"]]
    by_execution = [bench.outcomes[execution.envelope.request_id] for execution in (kept, cancelled, late, gone)]
    assert fields(by_execution[0]) == ["A"] and by_execution[1] == Dropped()
    assert [outcome.status.code for outcome in by_execution[2:] if isinstance(outcome, Failure)] == [Code.DEADLINE_EXCEEDED] * 2
    assert all(0 < execution.started <= execution.ended for execution in (kept, late, gone))


def test_a_body_that_cannot_be_read_concerns_nobody_else(bench: Bench, calls: Calls) -> None:
    bad = bench.execution("/in_place", docs=[{"text": 5}])
    outcomes = bench.run(bench.execution("/in_place", "a"), bad, bench.execution("/in_place", "b"))
    assert "data[0].text" in error(outcomes[1])
    assert calls.calls == [["a", "b"]]


def test_a_redelivered_request_stands_alone(bench: Bench, calls: Calls) -> None:
    bench.run(bench.execution("/in_place", "a"), bench.execution("/in_place", "b", attempt=2), bench.execution("/in_place", "c"))
    assert calls.calls == [["a", "c"], ["b"]]


def test_nothing_is_run_again_in_a_process_that_is_to_end(calls: Calls) -> None:
    bench = Bench(calls, exit_on_exceptions=["ValueError"])
    outcomes = bench.run(bench.execution("/poison", "a"), bench.execution("/poison", "poison"))
    assert len(calls.calls) == 1
    assert all(isinstance(outcome, Failure) and outcome.exit_worker for outcome in outcomes)


def test_the_context_of_a_shared_call_is_nobodys_own(bench: Bench, calls: Calls) -> None:
    soon = time.time() + 50
    one, two = bench.execution("/context", "a", deadline=soon + 9), bench.execution("/context", "b", deadline=soon)
    one.delivery.fencing_token, two.delivery.fencing_token = 8, 5
    bench.run(one, two)
    assert calls.contexts == [shared_context([one, two])] == [Context("", 1, soon, 5, "/context")]
    alone = bench.execution("/context", "c")
    bench.run(alone)
    assert calls.contexts[1].request_id == alone.envelope.request_id


@pytest.mark.feature("DB-09")
def test_a_custom_metric_decides_how_many_documents_share_a_call(bench: Bench, calls: Calls) -> None:
    outcomes = bench.run(
        bench.execution("/metric", "4", "5"),
        bench.execution("/metric", "2"),
        bench.execution("/metric", "x"),
        bench.execution("/metric", "-1"),
    )
    assert calls.calls == [["4", "5"], ["2"]]
    assert error(outcomes[2]).startswith("ValueError") and "custom_metric gave -1.0" in error(outcomes[3])


def test_enough_requests_are_held_for_two_batches_whatever_their_size(bench: Bench) -> None:
    assert bench.batcher.ahead == 64  # /poison: two times 32 requests of one document
    for _ in range(20):
        bench.run(bench.execution("/poison", *"abcdefgh"))
    assert bench.batcher._ahead["/poison"] == 8
    for _ in range(200):
        bench.run(bench.execution("/poison"))
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

    def encode(execution: Execution, *rest: Any) -> Output:
        if b"bad" in bytes(execution.envelope.body):
            raise TypeError("not JSON")
        return real(execution, *rest)

    monkeypatch.setattr(bench.processor, "encode", encode)
    one, bad = bench.run(bench.execution("/in_place", "a"), bench.execution("/in_place", "bad"))
    assert fields(one) == ["A"] and isinstance(bad, Failure) and bad.status.code is Code.INTERNAL


async def test_async_endpoints_are_divided_in_the_same_way(bench: Bench, calls: Calls) -> None:
    executions = [bench.execution("/async", text) for text in ("a", "poison", "b", "c")]
    bench.admit(*executions)
    async for ended in bench.batcher.arun(bench.waiting.take(1e9)):
        bench.ended(ended)
    outcomes = [bench.outcomes[execution.envelope.request_id] for execution in executions]
    assert error(outcomes[1]).startswith("ValueError")
    assert [fields(outcomes[n]) for n in (0, 2, 3)] == [["A"], ["B"], ["C"]]
    assert calls.calls[0] == ["a", "poison", "b", "c"] and len(calls.calls) == 5
