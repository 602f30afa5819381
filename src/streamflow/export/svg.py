"""A chart as SVG, laid out and drawn here: no other program, no font file, no script in the picture."""

from __future__ import annotations

from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from .chart import Box, BoxKind, Chart, Line
from .layout import Place, Point, Size, lay_out

NAME_PX, TEXT_PX = 7.6, 6.4  # mean width of a letter in the sizes below; wide scripts are counted twice
LINE_PX, PAD_X, PAD_Y = 16.0, 14.0, 9.0
STYLE = """\
text { font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #334155; text-anchor: middle }
.name { font-size: 13px; font-weight: 600; fill: #0f172a }
.box { fill: #f8fafc; stroke: #334155; stroke-width: 1.2 }
.client .box { fill: #dbeafe; stroke: #1d4ed8 }
.external .box { fill: #fef3c7; stroke: #b45309 }
.floating .box, .dotted { stroke-dasharray: 5 4 }
.line { fill: none; stroke: #475569; stroke-width: 1.4; marker-end: url(#arrow) }
"""
ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L10 5L0 10z" fill="#475569"/></marker></defs>'
)


def to_svg(chart: Chart, *, vertical: bool = False) -> str:
    """The text of an SVG file."""
    sizes = {box.key: _size(box) for box in chart.boxes}
    layout = lay_out(sizes, [(line.source, line.target) for line in chart.lines], vertical=vertical)
    width, height = _number(layout.width), _number(layout.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>{_text(chart.title)}</title>",
        f"<style>{STYLE}</style>{ARROW}",
        '<rect width="100%" height="100%" fill="#fff"/>',
        *(_line(line, layout.routes[line.source, line.target], vertical=vertical) for line in chart.lines),
        *(_box(box, layout.places[box.key]) for box in chart.boxes),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _size(box: Box) -> Size:
    widths = [_letters(box.lines[0]) * NAME_PX, *(_letters(line) * TEXT_PX for line in box.lines[1:])]
    return Size(max(widths) + 2 * PAD_X, len(box.lines) * LINE_PX + 2 * PAD_Y)


def _letters(text: str) -> int:
    return sum(2 if ord(sign) > 0x2E7F else 1 for sign in text)


def _box(box: Box, place: Place) -> str:
    round_px = place.height / 2 if box.kind is BoxKind.CLIENT else 6
    rect = f'<rect class="box" x="{_number(place.x)}" y="{_number(place.y)}" width="{_number(place.width)}" '
    rect += f'height="{_number(place.height)}" rx="{_number(round_px)}"/>'
    middle = place.x + place.width / 2
    texts = [
        f'<text x="{_number(middle)}" y="{_number(place.y + PAD_Y + LINE_PX * (number + 0.72))}"{_name_class(number)}>{_text(line)}</text>'
        for number, line in enumerate(box.lines)
    ]
    return f'<g class="{box.kind.value}" data-name={quoteattr(_clean(box.key))}>{rect}{"".join(texts)}</g>'


def _name_class(number: int) -> str:
    return "" if number else ' class="name"'


def _line(line: Line, route: tuple[Point, ...], *, vertical: bool) -> str:
    path = f"M{_point(route[0])}" + "".join(_curve(*step, vertical=vertical) for step in pairwise(route))
    return f'<path class="line{" dotted" if line.dotted else ""}" d="{path}"/>'


def _curve(start: Point, end: Point, *, vertical: bool) -> str:
    """A bow that leaves and arrives in the direction of the arrows."""
    if vertical:
        half = (start.y + end.y) / 2
        return f"C{_point(Point(start.x, half))} {_point(Point(end.x, half))} {_point(end)}"
    half = (start.x + end.x) / 2
    return f"C{_point(Point(half, start.y))} {_point(Point(half, end.y))} {_point(end)}"


def _point(point: Point) -> str:
    return f"{_number(point.x)} {_number(point.y)}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(text: str) -> str:
    return escape(_clean(text))


def _clean(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return "".join(sign for sign in text if sign in "\t\n\r" or _is_xml(ord(sign)))


def _is_xml(code: int) -> bool:
    return 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
