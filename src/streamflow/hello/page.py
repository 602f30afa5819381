"""The result page of `hello digits`: one HTML file with the pictures inside, no script and no other host."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

from .pictures import Sample
from .scores import LEGEND, Quality, Timing


@dataclass(frozen=True, slots=True)
class Found:
    """One hit as the page shows it."""

    name: str
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is printed and written: `answers` maps the name of a query to its hits, best first."""

    indexed: int
    quality: Quality
    timings: Sequence[Timing]
    per_request: int
    answers: Mapping[str, Sequence[Found]]


def render(report: Report, samples: Mapping[str, Sample]) -> str:
    """The page; `samples` holds every picture that is named in the report. Labels are escaped: they may be folder names."""
    pictures = {name: data_uri(sample) for name, sample in samples.items()}
    rows = [_row(samples[name], hits, pictures) for name, hits in report.answers.items()]
    return fill("page.html", **_figures(report, samples), rows="\n".join(rows), timings=timing_rows(report.timings))


def fill(template: str, **values: str) -> str:
    """A page of this folder with the style, the legend and `values` in it; values are HTML already."""
    folder = files(__package__)
    style = folder.joinpath("style.html").read_text("utf-8")
    legend = "\n".join(f'<p class="soft">{escape(line)}</p>' for line in LEGEND)
    return Template(folder.joinpath(template).read_text("utf-8")).substitute(values, style=style, legend=legend)


def data_uri(sample: Sample) -> str:
    """The picture as a PNG that stands in the page itself."""
    from PIL import Image  # an optional dependency

    buffer = io.BytesIO()
    Image.fromarray(sample.pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figures(report: Report, samples: Mapping[str, Sample]) -> dict[str, str]:
    quality = report.quality
    missed = sum(any(hit.label != samples[name].label for hit in hits) for name, hits in report.answers.items())
    return {
        "summary": f"{report.indexed:,} pictures indexed, {quality.queries:,} asked for. Solid frame: same label; dashed: another.",
        "precision": f"{quality.precision:.1%}",
        "recall": f"{quality.recall:.1%}",
        "ceiling": f"{quality.recall_ceiling:.1%}",
        "queries": f"{quality.queries:,}",
        "missed": f"{missed:,}",
        "batch": f"Search requests of up to {report.per_request} pictures. The gateway's is the whole request; waited: in the queue.",
    }


def timing_rows(timings: Sequence[Timing]) -> str:
    """Rows of a table: hop, requests, median, slowest, waited."""
    rows = ((one.name, str(one.requests), f"{one.median_ms:.1f}", f"{one.worst_ms:.1f}", one.waited) for one in timings)
    return "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)


def _row(query: Sample, hits: Sequence[Found], pictures: Mapping[str, str]) -> str:
    clean = "row clean" if all(hit.label == query.label for hit in hits) else "row"
    cells = "".join(hit_figure(query.label, hit, pictures[hit.name], hit.name) for hit in hits)
    head = query_figure(query, pictures[query.name], query.name)
    return f'<li class="{clean}">{head}<div class="hits">{cells}</div></li>'


def query_figure(query: Sample, picture: str, title: str) -> str:
    """What was asked for, with its label; `picture` is its data URI."""
    label = escape(query.label)
    return f'<figure><img src="{picture}" alt="query, {label}"><figcaption title="{escape(title)}">{label}</figcaption></figure>'


def hit_figure(wanted: str, hit: Found, picture: str, title: str) -> str:
    """One hit, marked by more than its colour as right or wrong; `wanted` is the query's label."""
    label = escape(hit.label)
    mark, kind, verdict = ("", "hit", "right") if hit.label == wanted else ("✕ ", "miss", "wrong")
    return (
        f'<figure class="{kind}"><img src="{picture}" alt="hit, {label}, {verdict}" loading="lazy">'
        f'<figcaption title="{escape(title)}, similarity {hit.score:.3f}">{mark}{label}</figcaption></figure>'
    )
