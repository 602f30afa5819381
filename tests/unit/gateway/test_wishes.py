"""What the metadata of a gRPC call, or of a client on the queue, ask for beside the messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.errors import InvalidInput
from streamflow.gateway.dispatch import Call
from streamflow.gateway.wishes import Wishes

DEADLINES = st.just(0.0) | st.floats(1.0, 1e9)


def a_call(deadline: float = 0.0, trace: dict[str, str] | None = None) -> Call:
    return Call("/echo", b"", "", "", deadline=deadline, trace=trace or {})


@given(DEADLINES, DEADLINES)
def test_the_earlier_deadline_counts_and_none_is_no_deadline(of_call: float, of_connection: float) -> None:
    call = Wishes.of({}, of_connection).applied(a_call(of_call))
    assert call.deadline == min([each for each in (of_call, of_connection) if each], default=0.0)


def test_metadata_ask_for_the_latest_state_and_for_keeping_the_answer() -> None:
    call = Wishes.of({"x-streamflow-consistency": "latest", "x-streamflow-keep": "60", "other": "1"}).applied(a_call())
    assert (call.latest, call.keep_s, call.trace) == (True, 60.0, {})
    assert Wishes.of({}).applied(a_call()) == a_call()


def test_the_trace_of_a_message_wins_and_calls_do_not_share_one() -> None:
    wishes = Wishes.of({"traceparent": "outer", "tracestate": "a=1"})
    assert wishes.applied(a_call(trace={"traceparent": "own"})).trace == {"traceparent": "own"}
    first, second = wishes.applied(a_call()), wishes.applied(a_call())
    assert first.trace == {"traceparent": "outer", "tracestate": "a=1"}
    assert first.trace is not second.trace


@pytest.mark.parametrize(
    ("metadata", "named"),
    [({"x-streamflow-consistency": "newest"}, "x-streamflow-consistency"), ({"x-streamflow-keep": "soon"}, "x-streamflow-keep")],
)
def test_wrong_metadata_are_refused_by_name(metadata: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        Wishes.of(metadata)
