"""`${{ ... }}` in a parsed file: what is put in, with which kind, and what is refused with its line."""

from __future__ import annotations

from typing import Any

import pytest

from streamflow.broker.errors import FlowError
from streamflow.broker.yaml_tree import parse
from streamflow.broker.yaml_variables import resolve

pytestmark = pytest.mark.feature("YM-04", "YM-05", "YM-06")


def put_in(text: str, **context: Any) -> Any:
    return resolve(parse(text, "flow.yml"), context).value


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


def test_a_quoted_value_stays_text_beside_a_merged_one_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8080")
    value = put_in("a: &a {port: 5}\nb:\n  port: '${{ ENV.PORT }}'\n  <<: *a\n")
    assert value == {"a": {"port": 5}, "b": {"port": "8080"}}


def test_a_variable_cannot_add_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL", "x\nuses: !!python/object [${{ ENV.HOME }}]")
    assert put_in("name: ${{ ENV.EVIL }}") == {"name": "x\nuses: !!python/object [${{ ENV.HOME }}]"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: ${{ ENV.STREAMFLOW_NOT_SET }}", "flow.yml:2: b: environment variable 'STREAMFLOW_NOT_SET' is not set"),
        ("a: ${{ CONTEXT.x }}", "flow.yml:1: a: 'x' is not in the context"),
        ("a: ${{root.b.c}}\nb: 3", "flow.yml:1: a: 'b.c' is not in this file"),
        ("a: ${{root.b}}\nb: ${{root.a}}", "refers to itself"),
        ("a: {b: '${{root.a}}'}", "flow.yml:1: a.b: 'root.a' refers to itself"),
        ("a: ${{ HOME }}", "flow.yml:1: a: variable 'HOME': use ENV.NAME, CONTEXT.name or root.path.to.value"),
        (
            "a0: [1, 1]\n" + "".join(f"a{i + 1}: ['${{{{root.a{i}}}}}', '${{{{root.a{i}}}}}']\n" for i in range(40)),
            "more than 50000 values",
        ),
        ("a0: xxxxxxxxxxxxxxxx\n" + "".join(f"a{i + 1}: '${{{{root.a{i}}}}}${{{{root.a{i}}}}}'\n" for i in range(40)), "too long"),
    ],
)
def test_variables_that_do_not_work_are_told_with_their_line(text: str, message: str) -> None:
    with pytest.raises(FlowError) as caught:
        put_in(text)
    assert message in str(caught.value)
