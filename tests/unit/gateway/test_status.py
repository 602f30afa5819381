"""The table of outcomes."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.errors import Code
from streamflow.gateway.status import CLOSE_REASON_BYTES, OUTCOMES, close_reason, outcome

pytestmark = pytest.mark.feature("ER-02", "ER-03", "ER-04")


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_an_outcome_with_a_real_grpc_name(code: Code) -> None:
    assert hasattr(grpc.StatusCode, outcome(code).grpc)
    assert 100 <= outcome(code).http < 600


def test_http_statuses_are_the_documented_ones() -> None:
    assert {code: outcome(code).http for code in Code} == {
        Code.OK: 200,
        Code.EXECUTOR_ERROR: 500,
        Code.INVALID_ARGUMENT: 422,
        Code.NOT_FOUND: 404,
        Code.ALREADY_EXISTS: 409,
        Code.ALREADY_EXISTS: 409,
        Code.UNAUTHENTICATED: 401,
        Code.PERMISSION_DENIED: 403,
        Code.DEADLINE_EXCEEDED: 504,
        Code.CANCELLED: 499,
        Code.RESOURCE_EXHAUSTED: 429,
        Code.TOO_LARGE: 413,
        Code.UNAVAILABLE: 503,
        Code.QUARANTINED: 500,
        Code.INTERNAL: 500,
    }


def test_only_unreachable_and_late_end_a_stream_and_close_a_socket() -> None:
    ending = {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}
    assert {code for code, said in OUTCOMES.items() if said.ends_stream} == ending
    assert {code for code, said in OUTCOMES.items() if said.close} == ending
    assert not outcome(Code.EXECUTOR_ERROR).aborts


@given(st.text())
def test_a_close_reason_fits_and_is_a_prefix(text: str) -> None:
    reason = close_reason(text)
    assert len(reason.encode()) <= CLOSE_REASON_BYTES
    assert text.startswith(reason)
    assert reason == text or len(reason.encode()) > CLOSE_REASON_BYTES - 4
