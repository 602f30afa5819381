"""Documents out of arrays, tables and files: what needs no server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from docarray import BaseDoc
from hypothesis import given
from hypothesis import strategies as st

from streamflow.client import BadArguments, from_csv, from_files, from_lines, from_ndarray, from_ndjson


class Point(BaseDoc):
    x: int
    y: float = 0.0


@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.data())
def test_an_array_is_cut_along_any_axis(shape: list[int], data: st.DataObject) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    axis = data.draw(st.integers(0, len(shape) - 1))
    rows = [doc.embedding for doc in from_ndarray(array, axis=axis, field="embedding")]
    np.testing.assert_array_equal(np.stack(rows, axis), array)


def test_a_class_converts_and_checks_with_the_line_named() -> None:
    assert [(doc.x, doc.y) for doc in from_csv(["x,y\n", "1,2.5\n", "3,4\n"], doc_type=Point)] == [(1, 2.5), (3, 4.0)]
    rows = from_csv(["x\n", "1\n", "many\n"], doc_type=Point)
    next(rows)
    with pytest.raises(BadArguments, match="line 3: x: Input should be a valid integer"):
        next(rows)


def test_short_and_long_lines_of_a_table_keep_what_has_a_name() -> None:
    short, long = from_csv(["a,b\n", "1\n", "1,2,3\n"])
    assert (short.a, hasattr(short, "b"), long.b) == ("1", False, "2")


@pytest.mark.parametrize(("line", "said"), [("{", "line 2: not JSON"), ("[1]", "line 2: expected a JSON object, got list")])
def test_a_line_that_is_no_object_is_named(line: str, said: str) -> None:
    rows = from_ndjson(["{}\n", line])
    next(rows)
    with pytest.raises(BadArguments, match=said):
        next(rows)


def test_nothing_is_read_ahead_and_size_ends_the_reading() -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"line {read}\r\n"

    assert [doc.text for doc in from_lines(endless(), size=3)] == ["line 1", "line 2", "line 3"]
    assert read == 3


def test_a_sample_is_about_as_large_as_asked_for() -> None:
    kept = sum(1 for _ in from_lines(io.StringIO("x\n" * 2000), sampling_rate=0.25))
    assert 380 < kept < 620  # five standard deviations


def test_a_file_closes_with_the_generator(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("a\nb\n")
    rows = from_lines(path)
    assert next(rows).text == "a"
    del rows  # an open file would be a ResourceWarning, which is an error


def test_patterns_without_a_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadArguments, match="no file matches .*x.mp4, .*y.pdf"):
        from_files([tmp_path / "x.mp4", tmp_path / "y.pdf"])
