"""Lines of JSON as requests: nothing that can be read is lost, nothing else gets in, line numbers are right."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.errors import InvalidInput
from streamflow.broker.json_lines import MAX_KEPT, Faults, JsonLines

DOCUMENTS = st.dictionaries(st.text(max_size=5), st.one_of(st.integers(-5, 5), st.text(max_size=5), st.none()), max_size=3)
BROKEN = st.sampled_from([b"{", b"[1]", b"null", b'"text"', b"{]", b"\xff", b"[{}, 1]", b"NaN"])


def read(lines: list[bytes], size: int) -> tuple[list[list[Any]], Faults]:
    faults = Faults()
    reader = JsonLines(size, faults)
    made = [one for line in lines for one in reader.take(line)]
    return [orjson.loads(one.body) for one in (*made, *reader.rest())], faults


@given(st.lists(st.one_of(DOCUMENTS, st.lists(DOCUMENTS, max_size=3), BROKEN), max_size=20), st.integers(-1, 5))
def test_good_lines_are_requests_and_broken_ones_are_told(values: list[Any], size: int) -> None:
    lines = [value if isinstance(value, bytes) else json.dumps(value).encode() + b"\r\n" for value in values]
    found, faults = read(lines, size)
    expected = [
        document for value in values if not isinstance(value, bytes) for document in (value if isinstance(value, list) else [value])
    ]
    assert [document for one in found for document in one] == expected
    assert [fault.line for fault in faults.first] == [at for at, value in enumerate(values, 1) if isinstance(value, bytes)]
    if size > 0 and not any(isinstance(value, list) for value in values):
        assert all(len(one) == size for one in found[:-1])


def test_empty_lines_count_but_are_no_documents() -> None:
    found, faults = read([b"\n", b"  ", b'{"a":1}', b"", b"x"], 10)
    assert found == [[{"a": 1}]] and [fault.line for fault in faults.first] == [5]


def test_faults_are_counted_but_not_all_kept() -> None:
    _, faults = read([b"x"] * (MAX_KEPT + 5), 10)
    assert faults.count == MAX_KEPT + 5 and len(faults.first) == MAX_KEPT
    with pytest.raises(InvalidInput, match="line 1: not JSON"):
        faults.check_any(0)


def test_strict_refuses_the_first() -> None:
    reader = JsonLines(1, Faults(strict=True))
    assert len(list(reader.take(b"{}"))) == 1
    with pytest.raises(InvalidInput, match="line 2: neither a JSON object"):
        list(reader.take(b"1"))
