"""Answer envelopes as JSON."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.envelope import COLUMNS, JSON, Envelope, Hop
from streamflow.broker.errors import Code, Status
from streamflow.gateway.answers import document, hops, iso, plain, print_json

pytestmark = pytest.mark.feature("GW-14", "PR-20")

NOW = 1_800_000_000.25
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=3),
    max_leaves=8,
)


def printed(envelope: Envelope) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(print_json(envelope, NOW))
    return answer


def test_an_answer_has_jinas_shape() -> None:
    envelope = Envelope(
        "ours",
        endpoint="/search",
        client_id="theirs",
        content_type=JSON,
        target_executor="enc",
        parameters={"k": 5},
        results={"enc/rep-0": {"n": 20}},
        trail=(Hop("enc", "enc-0", NOW, NOW + 1, NOW + 2),),
        body=memoryview(b'[{"id":"1"}]'),
    )
    answer = printed(envelope)
    assert list(answer) == ["data", "parameters", "header", "routes"]
    assert answer["data"] == [{"id": "1"}]
    assert answer["parameters"] == {"k": 5.0, "__results__": {"enc/rep-0": {"n": 20.0}}}
    assert answer["header"] == {"requestId": "theirs", "status": None, "execEndpoint": "/search", "targetExecutor": "enc"}
    assert [route["executor"] for route in answer["routes"]] == ["gateway", "enc"]
    assert answer["routes"][1]["startTime"] == "2027-01-15T08:00:00.250000+00:00"
    assert answer["routes"][1]["endTime"] == "2027-01-15T08:00:02.250000+00:00"


@pytest.mark.feature("DC-05")
def test_integers_are_printed_as_floats() -> None:
    assert b'"parameters":{"k":5.0,"flag":true}' in print_json(Envelope("r", parameters={"k": 5, "flag": True}), NOW)


def test_an_answer_without_documents_has_an_empty_list() -> None:
    assert printed(Envelope("r"))["data"] == []


def test_a_failure_says_what_and_keeps_the_shape() -> None:
    status = Status(Code.EXECUTOR_ERROR, "ValueError('x')", "ValueError", ("x",), ("line 1", "line 2"), "MyExec")
    answer = printed(Envelope("r", client_id="c", endpoint="/e", status=status))
    assert answer["detail"] == "ValueError('x')"
    assert answer["code"] == "EXECUTOR_ERROR"
    assert answer["header"]["requestId"] == "c"
    exception = {"name": "ValueError", "args": ["x"], "stacks": ["line 1", "line 2"], "executor": "MyExec"}
    assert answer["header"]["status"] == {"code": 1, "description": "ValueError('x')", "exception": exception}


def test_a_body_in_another_form_is_a_failure_not_bad_json() -> None:
    answer = printed(Envelope("r", content_type=COLUMNS, body=b"\x93\x01"))
    assert answer["code"] == "INTERNAL"


def test_parts_of_a_stream_tell_their_place() -> None:
    answer = printed(Envelope("r", position=2, final=False))
    assert (answer["position"], answer["final"]) == (2, False)


def test_a_trail_that_starts_at_the_gateway_stays() -> None:
    trail = (Hop("gateway", "", 0, 1, 2), Hop("enc"))
    assert hops(Envelope("r", trail=trail), NOW) == trail


@given(st.dictionaries(st.text(), anything), st.text(), st.text())
def test_nothing_that_travels_breaks_an_answer(parameters: dict[str, Any], client_id: str, description: str) -> None:
    answer = json.loads(print_json(Envelope("r", client_id=client_id, parameters=parameters), NOW))
    assert answer["data"] == []
    failed = json.loads(print_json(Envelope("r", client_id=client_id, status=Status(Code.INTERNAL, description)), NOW))
    assert failed["code"] == "INTERNAL"


def test_half_a_surrogate_pair_does_not_lose_the_answer() -> None:
    assert printed(Envelope("r", client_id="a\ud800", parameters={"\udfff": 1 << 63}))["header"]["requestId"] == "a?"


def test_plain_keeps_what_a_float_cannot_hold() -> None:
    assert plain(2**53 + 1) == 2**53 + 1
    assert plain((1, b"ab", {1: None})) == [1.0, "YWI=", {"1": None}]


@given(st.floats(1, 4e9))
def test_times_are_iso_in_utc(unix_s: float) -> None:
    text = iso(unix_s)
    assert text is not None
    assert math.isclose(datetime.fromisoformat(text).timestamp(), unix_s, abs_tol=2e-6)
    assert text.endswith("+00:00")


@pytest.mark.parametrize(("body", "expected"), [(b"", b""), (b"[]", b""), (b'[{"a":1}]', b'{"a":1}'), (b' [ {"a":1} ] ', b'{"a":1}')])
def test_the_one_document_of_a_part(body: bytes, expected: bytes) -> None:
    assert document(body) == expected
