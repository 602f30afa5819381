"""What a client says about the consistency of its reads, in headers, metadata and WebSocket messages."""

from __future__ import annotations

import pytest

from streamflow.broker.errors import InvalidInput
from streamflow.gateway.consistency import HEADER, is_latest, is_latest_in
from streamflow.gateway.json_wire import build
from streamflow.gateway.peek import NOTHING


def test_latest_is_said_by_one_word() -> None:
    assert is_latest("latest") and not is_latest("any") and not is_latest("")
    assert build("/x", {HEADER: b"latest"}, b"", NOTHING).latest and not build("/x", {}, b"", NOTHING).latest


@pytest.mark.parametrize("value", ["Latest", "strong", "1", "x" * 10_000])
def test_other_words_are_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match=r"must be 'latest' or 'any'") as refused:
        is_latest(value)
    assert len(str(refused.value)) < 150


def test_a_message_may_say_it_for_itself() -> None:
    assert is_latest_in(b'{"data": [], "consistency": "latest"}') and not is_latest_in(b'{"data": [{"consistency": "latest"}]}')
    for wrong in (b'{"consistency": true}', b'{"consistency": "soon"}'):
        with pytest.raises(InvalidInput):
            is_latest_in(wrong)
