"""Text to tree with lines: what is read, what is refused and where. Bounded, and nothing but plain values."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow.broker.errors import FlowError
from streamflow.broker.yaml_tree import MAX_BYTES, from_data, parse, read
from streamflow.broker.yaml_variables import resolve

FLOW = """\
!Flow
with: &with {port: 8080, on: yes, at: 12:30, day: 2020-01-01, n: ~}
executors:
- name: a
  uses: !MyExec {py_modules: x.py}
- <<: *with
  name: b
  uses: !Other
"""


@pytest.mark.feature("YM-01")
def test_local_tags_anchors_and_lines() -> None:
    tree = parse(FLOW, "flow.yml")
    assert tree.value["jtype"] == "Flow"
    assert tree.value["with"] == {"port": 8080, "on": "yes", "at": "12:30", "day": "2020-01-01", "n": None}
    assert tree.value["executors"][0]["uses"] == {"jtype": "MyExec", "py_modules": "x.py"}
    assert tree.value["executors"][1] == {**tree.value["with"], "name": "b", "uses": {"jtype": "Other"}}
    assert tree.line_of("executors", 1, "name") == "flow.yml:7"
    assert tree.line_of("executors", 0, "uses", "py_modules") == "flow.yml:5"
    assert tree.line_of("executors", 1, "missing") == "flow.yml:6"


def test_every_path_knows_its_place() -> None:
    tree = parse("jtype: X\nwith:\n  a: 1\n  list:\n    - p\n    - {q: 2}\n", "f.yml")
    assert tree.value == {"jtype": "X", "with": {"a": 1, "list": ["p", {"q": 2}]}}
    assert tree.where("with", "list", 1, "q") == "f.yml:6: with.list[1].q"
    assert tree.where("with", "missing") == "f.yml:2: with.missing"
    assert tree.where() == "f.yml:1"
    assert str(tree.error("is wrong", "with", "a")) == "f.yml:3: with.a: is wrong"
    assert from_data({"a": 1}).where("a") == "dict: a"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("!X", {"jtype": "X"}),
        ("!X {a: 1}", {"jtype": "X", "a": 1}),
        ("!X\njtype: Y", {"jtype": "Y"}),
        ("uses: !X\n  with: {a: b}", {"uses": {"jtype": "X", "with": {"a": "b"}}}),
        ("yes: on\n1: x\n1.5: y", {"yes": "on", 1: "x", "1.5": "y"}),
        ("b: &b {x: 1, y: 1}\nd:\n  x: 2\n  <<: *b", {"b": {"x": 1, "y": 1}, "d": {"x": 2, "y": 1}}),
        ("a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}", {"a": {"x": 1}, "b": {"x": 2, "y": 2}, "c": {"x": 1, "y": 2}}),
        ("", None),
        ('{"a": [1.5, null]}', {"a": [1.5, None]}),
    ],
)
def test_forms(text: str, value: Any) -> None:
    assert parse(text).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("-3", -3),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("true", True),
        ("NULL", None),
        ("off", "off"),
        ("2026-01-02", "2026-01-02"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("!!float 5", 5.0),
        ("=", "="),
        ("", None),
    ],
)
def test_words_have_the_kinds_of_yaml_1_2(text: str, value: object) -> None:
    found = parse(f"key: {text}").value["key"]
    assert found == value and type(found) is type(value)


BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(8)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: !!python/object/apply:os.system ['true']", "flow.yml:2: tag 'tag:yaml.org,2002:python/object/apply:os.system' is"),
        ("a: !!binary aGk=", "flow.yml:1: tag"),
        ("a: !!set {x, y}", "flow.yml:1: tag"),
        ("a: !Foo [1]", "flow.yml:1: tag '!Foo' belongs before a mapping"),
        ("a: &a [*a]", "flow.yml:1: nested more than 64 deep"),
        ("a: &a {<<: *a}", "flow.yml"),
        ("[" * 5000, "flow.yml: nested too deep"),
        (BOMB, "more than 50000 values"),
        ("x: 1\nx: 2", "flow.yml:2: key 'x' is there twice, first in line 1"),
        ("a: [1\nb: 2", "flow.yml:2: no valid YAML: while parsing a flow sequence, expected ',' or ']'"),
        ("a: 1\n b: 2", "flow.yml:2: no valid YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "flow.yml:2: no valid YAML: expected a single document"),
        ("a: 1\nb: \x01", "flow.yml:2: no valid YAML: character U+0001"),
        ("? [1]\n: 2", "flow.yml:1: a key must be a single word"),
        ("a: *nope", "flow.yml:1: no valid YAML: found undefined alias"),
        ("<<: 3", "flow.yml:1: '<<' takes a mapping"),
        ("a: !!int x", "flow.yml:1: 'x' is no int"),
        ("x" * (MAX_BYTES + 1), "flow.yml: larger than 1 MiB"),
    ],
)
def test_what_is_unsafe_or_wrong_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(FlowError) as caught:
        parse(text, "flow.yml")
    assert message in str(caught.value)


@pytest.mark.feature("YM-09")
def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f.yml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    monkeypatch.chdir(tmp_path)
    tree = read("f.yml")
    assert (tree.value, tree.source, tree.file) == ({"a": 1}, "f.yml", tmp_path / "f.yml")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(FlowError, match="no.yml: cannot be read: No such file"):
        read(tmp_path / "no.yml")
    (tmp_path / "bytes.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FlowError, match="bytes.yml: cannot be read: not UTF-8"):
        read(tmp_path / "bytes.yml")
    for filler in (b" ", "é".encode()):
        (tmp_path / "large.yml").write_bytes(b"#" + filler * MAX_BYTES)
        with pytest.raises(FlowError, match="large.yml: larger than 1 MiB"):
            read(tmp_path / "large.yml")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Zl", "Zp"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.sampled_from("abc_"), min_size=1), inner, max_size=3),
    max_leaves=15,
)


@settings(max_examples=200, deadline=None)
@given(value=PLAIN)
def test_quoted_yaml_comes_back_as_it_went(value: Any) -> None:
    assert parse(yaml.safe_dump(value, default_style='"')).value == value


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from("ab:-[]{}&*!<>|'\"\n ,?#%@`0.$"), max_size=60) | st.text(max_size=100))
def test_any_text_is_read_or_refused_but_never_breaks(text: str) -> None:
    with suppress(FlowError):
        resolve(parse(text))
