"""Where the boxes of a directed graph without circles go: in layers, with few crossings and straight lines.

The usual four steps (Sugiyama, Tagawa, Toda 1981): a layer is the longest way from a source; lines over several layers get a bend in each;
layers are sorted by the mean position of their neighbours, up and down, keeping the order with the fewest crossings; then everything moves
as close to its neighbours as the gaps allow (isotonic regression, so the best there is for each layer). Pure; the result depends on nothing
but the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

LAYER_GAP, BOX_GAP, MARGIN = 56.0, 22.0, 16.0
SWEEPS = 12

Key = str
Edge = tuple[Key, Key]
Vertex = tuple[str, ...]  # (key,) of a box, or (source, target, layer) of a bend


class Size(NamedTuple):
    width: float
    height: float


class Place(NamedTuple):
    """A box by its upper left corner."""

    x: float
    y: float
    width: float
    height: float


class Point(NamedTuple):
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Layout:
    """`routes`: by edge the points a line passes through, its ends on the rims of the boxes."""

    width: float
    height: float
    places: Mapping[Key, Place]
    routes: Mapping[Edge, tuple[Point, ...]]


def lay_out(sizes: Mapping[Key, Size], edges: Sequence[Edge], *, vertical: bool = False) -> Layout:
    """From left to right, or from top to bottom. `edges` without circles; both ends are keys of `sizes`."""
    # Computed along (the direction of the arrows) and across; turned at the end.
    along = {key: size.height if vertical else size.width for key, size in sizes.items()}
    across = {key: size.width if vertical else size.height for key, size in sizes.items()}
    layers, links = _layers(sizes, edges)
    layers = _sorted_layers(layers, links)
    extents = {vertex: across[vertex[0]] if len(vertex) == 1 else 0.0 for layer in layers for vertex in layer}
    middles = _middles(layers, links, extents)
    starts, thickness = _starts(layers, along)
    boxes = {key: (starts[key], middles[key,] - across[key] / 2) for key in sizes}
    turn = _turned if vertical else Point
    corners = {key: turn(*box) for key, box in boxes.items()}
    places = {key: Place(*corners[key], *sizes[key]) for key in sizes}
    centers = [start + size / 2 for start, size in thickness]
    routes = {edge: tuple(turn(*point) for point in _route(edge, boxes, along, across, middles, centers)) for edge in edges}
    width = max((place.x + place.width for place in places.values()), default=0.0)
    height = max((place.y + place.height for place in places.values()), default=0.0)
    bends = [point for route in routes.values() for point in route]
    return Layout(
        max([width, *(point.x for point in bends)]) + MARGIN, max([height, *(point.y for point in bends)]) + MARGIN, places, routes
    )


def _layers(keys: Iterable[Key], edges: Sequence[Edge]) -> tuple[list[list[Vertex]], list[tuple[Vertex, Vertex]]]:
    """Vertices by layer, bends included, and the links between neighbouring layers."""
    rank = _ranks(keys, edges)
    layers: list[list[Vertex]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for key, layer in rank.items():
        layers[layer].append((key,))
    links = []
    for source, target in edges:
        chain: list[Vertex] = [(source,)]
        for layer in range(rank[source] + 1, rank[target]):
            chain.append((source, target, str(layer)))
            layers[layer].append(chain[-1])
        links += list(pairwise([*chain, (target,)]))
    return layers, links


def _ranks(keys: Iterable[Key], edges: Sequence[Edge]) -> dict[Key, int]:
    rank = dict.fromkeys(keys, 0)
    for _ in rank:  # at most as many rounds as the longest way has boxes
        moved = False
        for source, target in edges:
            if rank[target] <= rank[source]:
                rank[target], moved = rank[source] + 1, True
        if not moved:
            break
    return rank


def _sorted_layers(layers: list[list[Vertex]], links: list[tuple[Vertex, Vertex]]) -> list[list[Vertex]]:
    """The order with the fewest crossings that was met."""
    before, after = _neighbours(links)
    current = best = layers
    fewest = _crossings(layers, after)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        current = _swept(current, before if down else after, down=down)
        count = _crossings(current, after)
        if count < fewest:
            best, fewest = current, count
    return best


def _neighbours(links: list[tuple[Vertex, Vertex]]) -> tuple[dict[Vertex, list[Vertex]], dict[Vertex, list[Vertex]]]:
    before: dict[Vertex, list[Vertex]] = {}
    after: dict[Vertex, list[Vertex]] = {}
    for source, target in links:
        before.setdefault(target, []).append(source)
        after.setdefault(source, []).append(target)
    return before, after


def _swept(layers: list[list[Vertex]], neighbours: Mapping[Vertex, list[Vertex]], *, down: bool) -> list[list[Vertex]]:
    """Every layer sorted by the mean position of its neighbours in the one before (`down`) or behind it."""
    sorted_layers: list[list[Vertex]] = []
    for layer in layers if down else reversed(layers):
        fixed = {vertex: position for position, vertex in enumerate(sorted_layers[-1])} if sorted_layers else {}
        own = {vertex: position for position, vertex in enumerate(layer)}

        def wish(vertex: Vertex, fixed: Mapping[Vertex, int] = fixed, own: Mapping[Vertex, int] = own) -> tuple[float, int]:
            return _mean([fixed[each] for each in neighbours.get(vertex, ()) if each in fixed], own[vertex]), own[vertex]

        sorted_layers.append(sorted(layer, key=wish))
    return sorted_layers if down else sorted_layers[::-1]


def _crossings(layers: list[list[Vertex]], after: Mapping[Vertex, list[Vertex]]) -> int:
    total = 0
    for layer, following in pairwise(layers):
        position = {vertex: number for number, vertex in enumerate(following)}
        ends: list[int] = []
        for vertex in layer:
            targets = [position[target] for target in after.get(vertex, ())]
            total += sum(end > target for end in ends for target in targets)
            ends += targets
    return total


def _middles(layers: list[list[Vertex]], links: list[tuple[Vertex, Vertex]], extents: Mapping[Vertex, float]) -> dict[Vertex, float]:
    """The middle of every vertex across the layers; the least is `MARGIN` plus half an extent."""
    before, after = _neighbours(links)
    middles: dict[Vertex, float] = {}
    for layer in layers:
        middles |= zip(layer, _spread([0.0] * len(layer), [extents[vertex] for vertex in layer]), strict=True)
    for sweep in range(SWEEPS):
        neighbours = before if sweep % 2 == 0 else after
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wishes = [_mean([middles[each] for each in neighbours.get(vertex, ())], middles[vertex]) for vertex in layer]
            middles |= zip(layer, _spread(wishes, [extents[vertex] for vertex in layer]), strict=True)
    least = min((middle - extents[vertex] / 2 for vertex, middle in middles.items()), default=0.0)
    return {vertex: middle - least + MARGIN for vertex, middle in middles.items()}


def _spread(wishes: Sequence[float], extents: Sequence[float]) -> list[float]:
    """Middles in the given order, a gap apart, with the least sum of squared distances from `wishes` (pool adjacent violators)."""
    offsets = [0.0]
    for one, other in pairwise(extents):
        offsets.append(offsets[-1] + (one + other) / 2 + BOX_GAP)
    pools: list[tuple[float, int]] = []  # mean and count of those that move together
    for wish, offset in zip(wishes, offsets, strict=False):
        mean, count = wish - offset, 1
        while pools and pools[-1][0] > mean:
            other, size = pools.pop()
            mean, count = (mean * count + other * size) / (count + size), count + size
        pools.append((mean, count))
    moved = [mean for mean, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(moved, offsets, strict=False)]


def _starts(layers: list[list[Vertex]], along: Mapping[Key, float]) -> tuple[dict[Key, float], list[tuple[float, float]]]:
    """Where each box begins along, centred in its layer; and start and thickness of the layers."""
    starts: dict[Key, float] = {}
    spans: list[tuple[float, float]] = []
    at = MARGIN
    for layer in layers:
        boxes = [vertex[0] for vertex in layer if len(vertex) == 1]
        thickness = max((along[key] for key in boxes), default=0.0)
        starts |= {key: at + (thickness - along[key]) / 2 for key in boxes}
        spans.append((at, thickness))
        at += thickness + LAYER_GAP
    return starts, spans


def _route(
    edge: Edge,
    boxes: Mapping[Key, tuple[float, float]],
    along: Mapping[Key, float],
    across: Mapping[Key, float],
    middles: Mapping[Vertex, float],
    centers: Sequence[float],
) -> list[tuple[float, float]]:
    """From the end of one box over the bends to the start of the other, as (along, across)."""
    source, target = edge
    bends = [
        (center, middles[source, target, str(layer)]) for layer, center in enumerate(centers) if (source, target, str(layer)) in middles
    ]
    leave = (boxes[source][0] + along[source], boxes[source][1] + across[source] / 2)
    arrive = (boxes[target][0], boxes[target][1] + across[target] / 2)
    return [leave, *bends, arrive]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _turned(along: float, across: float) -> Point:
    return Point(across, along)
