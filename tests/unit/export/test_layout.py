"""Boxes in layers: none upon another, all lines forward, whatever the graph."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow.export.layout import BOX_GAP, MARGIN, Edge, Layout, Place, Size, lay_out


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, Size], list[Edge]]:
    count = draw(st.integers(1, 9))
    sizes = {f"b{number}": Size(draw(st.integers(10, 200)), draw(st.integers(10, 80))) for number in range(count)}
    pairs = [(f"b{one}", f"b{other}") for one, other in combinations(range(count), 2)]
    return sizes, draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []


def apart(one: Place, other: Place) -> bool:
    gap = BOX_GAP - 0.01
    return (
        one.x + one.width + gap <= other.x
        or other.x + other.width + gap <= one.x
        or one.y + one.height + gap <= other.y
        or other.y + other.height + gap <= one.y
    )


@settings(max_examples=200, deadline=None)
@given(graph=graphs(), vertical=st.booleans())
def test_no_box_touches_another_and_every_line_goes_forward(graph: tuple[dict[str, Size], list[Edge]], vertical: bool) -> None:
    sizes, edges = graph
    layout = lay_out(sizes, edges, vertical=vertical)
    assert all(apart(one, other) for one, other in combinations(layout.places.values(), 2))
    for key, place in layout.places.items():
        assert (place.width, place.height) == sizes[key]
        assert place.x >= MARGIN - 0.01 and place.y >= MARGIN - 0.01
        assert place.x + place.width <= layout.width and place.y + place.height <= layout.height
    for edge in edges:
        along = [point.y if vertical else point.x for point in layout.routes[edge]]
        assert all(one < other for one, other in pairwise(along))
        assert all(0 <= point.x <= layout.width and 0 <= point.y <= layout.height for point in layout.routes[edge])
    assert lay_out(sizes, edges, vertical=vertical) == layout


def boxes(names: str) -> dict[str, Size]:
    return dict.fromkeys(names, Size(40, 20))


def middle(layout: Layout, key: str) -> float:
    return layout.places[key].y + layout.places[key].height / 2


def test_a_chain_is_a_straight_line() -> None:
    layout = lay_out(boxes("abc"), [("a", "b"), ("b", "c")])
    assert middle(layout, "a") == middle(layout, "b") == middle(layout, "c")
    assert layout.places["a"].x < layout.places["b"].x < layout.places["c"].x


def test_branches_lie_evenly_around_what_they_come_from_and_go_to() -> None:
    layout = lay_out(boxes("abcd"), [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])
    assert middle(layout, "a") == pytest.approx((middle(layout, "b") + middle(layout, "c")) / 2)
    assert middle(layout, "d") == pytest.approx(middle(layout, "a"))


def test_lines_that_need_not_cross_do_not() -> None:
    # In the order of their names every line would cross every other.
    layout = lay_out(boxes("abcxyz"), [("a", "z"), ("b", "y"), ("c", "x")])
    order = sorted("abc", key=lambda key: middle(layout, key))
    assert sorted("xyz", key=lambda key: middle(layout, key)) == [{"a": "z", "b": "y", "c": "x"}[key] for key in order]


def test_a_long_line_goes_around_what_lies_between() -> None:
    layout = lay_out(boxes("abc"), [("a", "b"), ("b", "c"), ("a", "c")])
    bend = layout.routes["a", "c"][1]
    between = layout.places["b"]
    assert between.x < bend.x < between.x + between.width
    assert not between.y < bend.y < between.y + between.height


def test_a_box_alone() -> None:
    assert lay_out(boxes("a"), []).places == {"a": Place(MARGIN, MARGIN, 40, 20)}
