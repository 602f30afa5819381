"""The ledger of applied writes: the same after a snapshot, bounded, and forgetting in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.envelope import JSON, Envelope
from streamflow.broker.errors import Code, InvalidInput, Status
from streamflow.workers import ledger
from streamflow.workers.executions import Failure, Output
from streamflow.workers.ledger import FORGOTTEN, Ledger

parameters, results = st.none() | st.just({"a": [1, "b"]}), st.none() | st.just({"r": {"x": 1}})
outputs = st.builds(Output, st.binary(max_size=50), st.just(JSON), parameters, results)
failures = st.builds(Failure, st.builds(Status, st.just(Code.EXECUTOR_ERROR), st.text(max_size=20), st.just("ValueError")))
writes = st.lists(st.tuples(st.integers(0, 30).map("w{}".format), outputs | failures), max_size=40)


@given(writes)
def test_a_ledger_read_back_is_the_same(applied: list[tuple[str, Output | Failure]]) -> None:
    one = Ledger()
    for sequence, (name, outcome) in enumerate(applied, 1):
        one.applied(name, outcome, Envelope(name, parameters={"p": 1}))
        one.position = sequence
    other = Ledger.decode(one.encode())
    assert other.encode() == one.encode() and other.position == one.position
    for name, _ in applied:
        assert name in other and other.outcome(name) == one.outcome(name)
    assert other.outcome("never") is None and "never" not in other


def test_an_outcome_comes_back_as_it_was() -> None:
    kept = Ledger()
    kept.applied("a", Output(b"body", JSON, None, {"r": 1}, 3), Envelope("a", parameters={"own": 1}))
    kept.applied("b", Failure(Status(Code.EXECUTOR_ERROR, "no", "ValueError"), may_retry=True), Envelope("b"))
    output, failure = kept.outcome("a"), kept.outcome("b")
    assert isinstance(output, Output) and bytes(output.body) == b"body"
    assert (output.parameters, output.results) == ({"own": 1}, {"r": 1})
    assert isinstance(failure, Failure) and failure.status.description == "no" and not failure.may_retry


def test_what_came_of_a_write_is_forgotten_before_the_write_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_OUTCOMES", 2)
    monkeypatch.setattr(ledger, "MAX_NAMES", 4)
    kept = Ledger()
    for name in "abcdef":
        kept.applied(name, Output(b"x"), Envelope(name))
    assert [name for name in "abcdef" if name in kept] == ["c", "d", "e", "f"]
    assert kept.outcome("a") is None and kept.outcome("d") is FORGOTTEN and isinstance(kept.outcome("f"), Output)


def test_outcomes_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_BYTES", 1000)
    kept = Ledger()
    for name in "abc":
        kept.applied(name, Output(b"x" * 400), Envelope(name))
    assert kept.outcome("a") is FORGOTTEN and isinstance(kept.outcome("b"), Output)
    kept.applied("large", Output(b"x" * 4000), Envelope("large"))
    assert kept.outcome("large") is FORGOTTEN and len(Ledger.decode(kept.encode()).encode()) < 200


@pytest.mark.parametrize("data", [b"", b"nothing", b"\x93\x01\x02\x03", b"\x94\x02\x00\x90\x90"])
def test_other_bytes_are_no_ledger(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="ledger"):
        Ledger.decode(data)
