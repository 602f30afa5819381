"""A chart as Mermaid text (https://mermaid.js.org/syntax/flowchart.html), which GitHub, GitLab and many editors draw."""

from __future__ import annotations

from .chart import Box, BoxKind, Chart

_SHAPES = {
    BoxKind.CLIENT: ("([", "])"),
    BoxKind.EXECUTOR: ("[", "]"),
    BoxKind.FLOATING: ("[", "]"),
    BoxKind.EXTERNAL: ("[[", "]]"),
}


def to_mermaid(chart: Chart, *, vertical: bool = False) -> str:
    # Names such as `end` are words of the language, so boxes have numbers and the names are labels.
    keys = {box.key: f"n{number}" for number, box in enumerate(chart.boxes)}
    lines = ["---", f'title: "{chart.title}"', "---", f"flowchart {'TB' if vertical else 'LR'}"]
    lines += [f"  {keys[box.key]}{_shape(box)}" for box in chart.boxes]
    for line in chart.lines:
        arrow = "-.->" if line.dotted else "-->"
        lines.append(f"  {keys[line.source]} {arrow} {keys[line.target]}")
    floating = [keys[box.key] for box in chart.boxes if box.kind is BoxKind.FLOATING]
    if floating:
        lines += ["  classDef floating stroke-dasharray: 4 3", f"  class {','.join(floating)} floating"]
    return "\n".join(lines) + "\n"


def _shape(box: Box) -> str:
    left, right = _SHAPES[box.kind]
    return f'{left}"{"<br/>".join(map(_escaped, box.lines))}"{right}'


def _escaped(text: str) -> str:
    """Mermaid's entities begin with `#`; nothing in a label can end it or become markup."""
    special = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "\n": " ", "`": "#96;"}
    return "".join(special.get(sign, sign) for sign in text)
