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
    template = Template(files(__package__).joinpath("page.html").read_text("utf-8"))
    return template.substitute(_figures(report, samples), rows="\n".join(rows), legend=_legend(), timings=_timings(report.timings))


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


def _legend() -> str:
    return "\n".join(f'<p class="soft">{escape(line)}</p>' for line in LEGEND)


def _timings(timings: Sequence[Timing]) -> str:
    rows = ((one.name, str(one.requests), f"{one.median_ms:.1f}", f"{one.worst_ms:.1f}", one.waited) for one in timings)
    return "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)


def _row(query: Sample, hits: Sequence[Found], pictures: Mapping[str, str]) -> str:
    clean = "row clean" if all(hit.label == query.label for hit in hits) else "row"
    cells = "".join(_hit(query, hit, pictures) for hit in hits)
    label = escape(query.label)
    picture = f'<img src="{pictures[query.name]}" alt="query, {label}">'
    head = f'<figure>{picture}<figcaption title="{escape(query.name)}">{label}</figcaption></figure>'
    return f'<li class="{clean}">{head}<div class="hits">{cells}</div></li>'


def _hit(query: Sample, hit: Found, pictures: Mapping[str, str]) -> str:
    label = escape(hit.label)
    mark, kind, verdict = ("", "hit", "right") if hit.label == query.label else ("✕ ", "miss", "wrong")
    return (
        f'<figure class="{kind}"><img src="{pictures[hit.name]}" alt="hit, {label}, {verdict}" loading="lazy">'
        f'<figcaption title="{escape(hit.name)}, similarity {hit.score:.3f}">{mark}{label}</figcaption></figure>'
    )
