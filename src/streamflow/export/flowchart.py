"""`streamflow export flowchart` and `Flow.plot`: the picture of a flow, in the form that the file's suffix names."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from streamflow.broker.errors import InvalidInput
from streamflow.broker.flow import Graph

from .chart import chart_of
from .mermaid import to_mermaid
from .svg import to_svg

FORMS = (".svg", ".mmd", ".md", ".png")


def write_flowchart(graph: Graph, path: str | Path, *, vertical: bool = False) -> None:
    """Draw `graph` into `path`. Raises `InvalidInput` for a suffix that is no form, and for a PNG without the package that makes it."""
    path, chart = Path(path), chart_of(graph)
    if path.suffix == ".svg":
        path.write_text(to_svg(chart, vertical=vertical), encoding="utf-8")
    elif path.suffix == ".mmd":
        path.write_text(to_mermaid(chart, vertical=vertical), encoding="utf-8")
    elif path.suffix == ".md":
        path.write_text(f"```mermaid\n{to_mermaid(chart, vertical=vertical)}```\n", encoding="utf-8")
    elif path.suffix == ".png":
        path.write_bytes(_png(to_svg(chart, vertical=vertical)))
    else:
        raise InvalidInput(f"{path}: a flow chart is written as one of {', '.join(FORMS)}")


def _png(svg: str) -> bytes:
    try:
        cairosvg = import_module("cairosvg")
    except (ImportError, OSError) as error:  # OSError: the package is there, the cairo library is not
        raise InvalidInput(f"a PNG needs the package cairosvg and the cairo library ({error}); .svg and .mmd need nothing") from error
    made: bytes = cairosvg.svg2png(bytestring=svg.encode(), scale=2)
    return made
