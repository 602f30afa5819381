"""Text to tree with lines; bounded, and nothing but plain values."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker.errors import FlowError
from streamflow.broker.yaml_tree import MAX_BYTES, parse, read

KEYS = st.text("abcdefxyz_", min_size=1, max_size=8) | st.integers()
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20)


@given(TREES)
def test_what_pyyaml_writes_is_read_back(value: Any) -> None:
    assert parse(yaml.safe_dump(value)).value == value


@given(st.text(max_size=200))
def test_any_text_gives_a_tree_or_a_flow_error(text: str) -> None:
    try:
        parse(text)
    except FlowError as error:
        assert str(error).startswith("<inline>")


def test_every_path_knows_its_line() -> None:
    tree = parse("jtype: X\nwith:\n  a: 1\n  list:\n    - p\n    - {q: 2}\n", "f.yml")
    assert tree.value == {"jtype": "X", "with": {"a": 1, "list": ["p", {"q": 2}]}}
    assert tree.where("with", "list", 1, "q") == "f.yml:6: with.list[1].q"
    assert tree.where("with", "missing") == "f.yml:2: with.missing"
    assert tree.where() == "f.yml:1"
    assert str(tree.error("is wrong", "with", "a")) == "f.yml:3: with.a: is wrong"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("!X", {"jtype": "X"}),
        ("!X {a: 1}", {"jtype": "X", "a": 1}),
        ("!X\njtype: Y", {"jtype": "Y"}),
        ("uses: !X\n  with: {a: b}", {"uses": {"jtype": "X", "with": {"a": "b"}}}),
        ("yes: on\n1: x", {"yes": True, 1: "x"}),
        ("b: &b {x: 1, y: 1}\nd:\n  <<: *b\n  x: 2", {"b": {"x": 1, "y": 1}, "d": {"x": 2, "y": 1}}),
        ("d: 2026-01-02", {"d": date(2026, 1, 2)}),
        ("", None),
        ('{"a": [1.5, null]}', {"a": [1.5, None]}),
    ],
)
def test_forms(text: str, value: Any) -> None:
    assert parse(text).value == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "f.yml:2: key 'a' stands here twice, first in line 1"),
        ("a: 1\n b: 2", "f.yml:2: mapping values are not allowed here"),
        ("x: !!python/object/apply:os.system [ls]", "f.yml:1: tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed"),
        ("!!set {a}", "f.yml:1: tag .*set' is not allowed"),
        ("a:\n  !X [1]", "f.yml:2: tag '!X' stands on a value that is not a mapping"),
        ("? [a]\n: 1", "f.yml:1: a key must be text"),
        ("1\n--- \n2", "f.yml:2: expected a single document"),
        ("d: 2020-13-45", "f.yml:1: not a value: '2020-13-45'"),
        ("a: &a [*a]", "f.yml:1: nested deeper than 50 levels"),
        ("[" * 5000, "f.yml: nested deeper than 50 levels"),
        ("a: *b", "f.yml:1: found undefined alias 'b'"),
        ("\x00", "f.yml:1: unacceptable character"),
        ("a" * (MAX_BYTES + 1), f"f.yml: larger than {MAX_BYTES} bytes"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(FlowError, match=message):
        parse(text, "f.yml")


def test_aliases_cannot_grow_without_bound() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(FlowError, match="more than 50000 values, aliases expanded"):
        parse("\n".join(lines))


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read(path).value == {"a": 1} and read(path).source == str(path)
    with pytest.raises(FlowError, match="cannot be read"):
        read(tmp_path / "gone.yml")
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(FlowError, match="larger than"):
        read(path)
