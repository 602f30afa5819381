"""YAML with lines, and variables: what is read, what is refused and where."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow.broker.errors import FlowError
from streamflow.config.tree import MAX_BYTES, read_file, read_text
from streamflow.config.variables import resolve

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


def test_local_tags_anchors_and_lines() -> None:
    tree = read_text(FLOW, file="flow.yml")
    assert tree.value["jtype"] == "Flow"
    assert tree.value["with"] == {"port": 8080, "on": "yes", "at": "12:30", "day": "2020-01-01", "n": None}
    assert tree.value["executors"][0]["uses"] == {"jtype": "MyExec", "py_modules": "x.py"}
    assert tree.value["executors"][1] == {**tree.value["with"], "name": "b", "uses": {"jtype": "Other"}}
    assert tree.where(("executors", 1, "name")) == "flow.yml:7"
    assert tree.where(("executors", 0, "uses", "py_modules")) == "flow.yml:5"
    assert tree.where(("executors", 1, "missing")) == "flow.yml:6"


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
    found = read_text(f"key: {text}").value["key"]
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
        (BOMB, "more than 10000 values"),
        ("x: 1\nx: 2", "flow.yml:2: key 'x' is there twice"),
        ("a: [1\nb: 2", "flow.yml:2: no valid YAML: while parsing a flow sequence, expected ',' or ']'"),
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
        read_text(text, file="flow.yml")
    assert message in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(FlowError, match="no.yml: cannot be read: No such file"):
        read_file(tmp_path / "no.yml")
    (tmp_path / "bytes.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FlowError, match="bytes.yml: cannot be read: not UTF-8"):
        read_file(tmp_path / "bytes.yml")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Zl", "Zp"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.sampled_from("abc_"), min_size=1), inner, max_size=3),
    max_leaves=15,
)


@settings(max_examples=200, deadline=None)
@given(value=PLAIN)
def test_quoted_yaml_comes_back_as_it_went(value: Any) -> None:
    assert read_text(yaml.safe_dump(value, default_style='"')).value == value


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from("ab:-[]{}&*!<>|'\"\n ,?#%@`0.$"), max_size=60))
def test_any_text_is_read_or_refused_but_never_breaks(text: str) -> None:
    with suppress(FlowError):
        resolve(read_text(text))


def put_in(text: str, **context: Any) -> Any:
    return resolve(read_text(text, file="flow.yml"), context).value


def test_variables_take_the_kind_of_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8080")
    monkeypatch.setenv("SECRET", "0123")
    value = put_in(
        """
        port: ${{ ENV.PORT }}
        quoted: "${{ ENV.PORT }}"
        url: http://h:${{ ENV.PORT }}/${{CONTEXT.path}}
        env: {}
        executors:
        - name: first
          env:
            SECRET: ${{ ENV.SECRET }}
        - name: ${{root.executors[0].name}}-2
          copy: ${{root.executors.0.env}}
          sizes: ${{ CONTEXT.sizes }}
        """,
        path="x",
        sizes=[1, 2],
    )
    assert value["port"] == 8080 and value["quoted"] == "8080" and value["url"] == "http://h:8080/x"
    assert value["executors"][0]["env"] == {"SECRET": "0123"}
    assert value["executors"][1] == {"name": "first-2", "copy": {"SECRET": "0123"}, "sizes": [1, 2]}


def test_a_variable_cannot_add_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL", "x\nuses: !!python/object [${{ ENV.HOME }}]")
    assert put_in("name: ${{ ENV.EVIL }}") == {"name": "x\nuses: !!python/object [${{ ENV.HOME }}]"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: ${{ ENV.STREAMFLOW_NOT_SET }}", "flow.yml:2: environment variable 'STREAMFLOW_NOT_SET' is not set"),
        ("a: ${{ CONTEXT.x }}", "flow.yml:1: 'x' is not in the context"),
        ("a: ${{root.b.c}}\nb: 3", "flow.yml:1: 'b.c' is not in this file"),
        ("a: ${{root.b}}\nb: ${{root.a}}", "refers to itself"),
        ("a: {b: '${{root.a}}'}", "flow.yml:1: 'root.a' refers to itself"),
        ("a: ${{ HOME }}", "flow.yml:1: variable 'HOME': use ENV.NAME, CONTEXT.name or root.path.to.value"),
        (
            "a0: [1, 1]\n" + "".join(f"a{i + 1}: ['${{{{root.a{i}}}}}', '${{{{root.a{i}}}}}']\n" for i in range(40)),
            "more than 10000 values",
        ),
        ("a0: xxxxxxxxxxxxxxxx\n" + "".join(f"a{i + 1}: '${{{{root.a{i}}}}}${{{{root.a{i}}}}}'\n" for i in range(40)), "too long"),
    ],
)
def test_variables_that_do_not_work_are_told_with_their_line(text: str, message: str) -> None:
    with pytest.raises(FlowError) as caught:
        put_in(text)
    assert message in str(caught.value)
