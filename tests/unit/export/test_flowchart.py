"""Flow charts: what is in them, in every form, and what their labels cannot break."""

from __future__ import annotations

import importlib.util
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow.broker.errors import FlowError, InvalidInput
from streamflow.broker.flow import Graph, Node
from streamflow.export.chart import ANSWER, Box, BoxKind, Chart, Line, chart_of
from streamflow.export.mermaid import to_mermaid
from streamflow.export.svg import to_svg
from streamflow.flow import Flow

SVG = "{http://www.w3.org/2000/svg}"


class Encoder:
    """Stands for a user's class."""


def shop() -> Flow:
    flow = Flow(name="shop").add(name="encoder", uses=Encoder, replicas=2).add(name="indexer", uses="a/b/exec.yml", shards=3)
    flow.add(name="log", uses="docker://logger:1", floating=True, needs="encoder")
    flow.add(name="far", external=True, host="h", port=5, needs="gateway", when={"x": {"$eq": "<&>"}})
    return flow.needs(["indexer", "far"], name="end", uses={"jtype": "Joins"})


def test_a_chart_shows_executors_their_code_and_their_numbers() -> None:
    chart = chart_of(shop().graph)
    assert [(box.key, box.lines[1:], box.kind) for box in chart.boxes] == [
        ("gateway", (), BoxKind.CLIENT),
        ("encoder", ("Encoder", "2 replicas"), BoxKind.EXECUTOR),
        ("indexer", ("exec.yml", "3 shards"), BoxKind.EXECUTOR),
        ("log", ("docker://logger:1",), BoxKind.FLOATING),
        ("far", ("h:5", 'when {"x": {"$eq": "<&>"}}'), BoxKind.EXTERNAL),
        ("end", ("Joins",), BoxKind.EXECUTOR),
        (ANSWER, (), BoxKind.CLIENT),
    ]
    assert [(line.source, line.target, line.dotted) for line in chart.lines] == [
        ("gateway", "encoder", False),
        ("encoder", "indexer", False),
        ("encoder", "log", True),
        ("gateway", "far", False),
        ("indexer", "end", False),
        ("far", "end", False),
        ("end", ANSWER, False),
    ]


def test_a_flow_without_executors_is_an_echo() -> None:
    assert chart_of(Graph("empty")).lines == (Line("gateway", ANSWER),)


def test_mermaid_text() -> None:
    assert to_mermaid(chart_of(shop().graph)).splitlines() == [
        "---",
        'title: "shop"',
        "---",
        "flowchart LR",
        '  n0(["gateway"])',
        '  n1["encoder<br/>Encoder<br/>2 replicas"]',
        '  n2["indexer<br/>exec.yml<br/>3 shards"]',
        '  n3["log<br/>docker://logger:1"]',
        '  n4[["far<br/>h:5<br/>when {#quot;x#quot;: {#quot;$eq#quot;: #quot;#lt;#amp;#gt;#quot;}}"]]',
        '  n5["end<br/>Joins"]',
        '  n6(["gateway"])',
        "  n0 --> n1",
        "  n1 --> n2",
        "  n1 -.-> n3",
        "  n0 --> n4",
        "  n2 --> n5",
        "  n4 --> n5",
        "  n5 --> n6",
        "  classDef floating stroke-dasharray: 4 3",
        "  class n3 floating",
    ]
    assert "flowchart TB\n" in to_mermaid(chart_of(shop().graph), vertical=True)


@pytest.mark.feature("FL-14")
@pytest.mark.parametrize("vertical", [False, True])
def test_svg_holds_every_box_and_line(vertical: bool) -> None:
    chart = chart_of(shop().graph)
    root = ET.fromstring(to_svg(chart, vertical=vertical))
    assert [group.get("data-name") for group in root.findall(f"{SVG}g")] == [box.key for box in chart.boxes]
    assert [text.text for text in root.iter(f"{SVG}text")] == [line for box in chart.boxes for line in box.lines]
    lines = root.findall(f"{SVG}path")
    assert len(lines) == len(chart.lines) and sum("dotted" in str(line.get("class")) for line in lines) == 1


@settings(max_examples=100, deadline=None)
@given(labels=st.lists(st.text(max_size=20), min_size=2, max_size=4))
def test_labels_break_nothing(labels: list[str]) -> None:
    boxes = tuple(Box(f"b{number}", (label,)) for number, label in enumerate(labels))
    chart = Chart("t", boxes, (Line("b0", "b1"),))
    ET.fromstring(to_svg(chart))
    lines = to_mermaid(chart).split("\n")
    assert len(lines) == 4 + len(labels) + 1 + 1
    assert all(re.fullmatch(r'  n\d\["[^"<>&`]*"\]', line) for line in lines[4 : 4 + len(labels)])


@pytest.mark.feature("FL-14")
def test_plot_writes_the_form_of_the_suffix(tmp_path: Path) -> None:
    flow = shop()
    assert flow.plot(tmp_path / "a.svg").plot(str(tmp_path / "a.mmd")).plot(tmp_path / "a.md", vertical_layout=True) is flow
    assert (tmp_path / "a.svg").read_text().startswith("<svg ")
    assert (tmp_path / "a.mmd").read_text() == to_mermaid(chart_of(flow.graph))
    assert (tmp_path / "a.md").read_text().startswith("```mermaid\n---\n")
    with pytest.raises(InvalidInput, match="a.pdf: a flow chart is written as one of .svg, .mmd, .md, .png"):
        flow.plot(tmp_path / "a.pdf")


def test_a_flow_that_cannot_work_is_not_drawn(tmp_path: Path) -> None:
    broken = Graph("x", (Node("a", needs=("b",)),))
    with pytest.raises(FlowError):
        broken.validate()
    flow = Flow()
    flow._definition.executors.append({"name": "a", "needs": ["b"]})
    with pytest.raises(FlowError, match="needs 'b', which does not exist"):
        flow.plot(tmp_path / "a.svg")
    assert not (tmp_path / "a.svg").exists()


def test_a_png_without_the_package_that_makes_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    with pytest.raises(InvalidInput, match=r"a PNG needs the package cairosvg .*; \.svg and \.mmd need nothing"):
        shop().plot(tmp_path / "a.png")


@pytest.mark.skipif(importlib.util.find_spec("cairosvg") is None, reason="the optional package cairosvg is not installed")
def test_a_png_with_the_package_that_makes_it(tmp_path: Path) -> None:
    shop().plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
