"""The result page of `hello multimodal`: the same queries by caption, by picture and by both, one below the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from .captions import Captioned
from .page import Found, data_uri, fill, hit_figure, query_figure, timing_rows
from .scores import Quality, Timing

SHOWN = 60  # queries on the page; with all of them it would have 9,000 pictures


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask: its quality, and the hits of each query by the query's name, best first."""

    name: str
    quality: Quality
    answers: Mapping[str, Sequence[Found]]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Everything that is printed and written; of `ways` the last is by both."""

    indexed: int
    ways: Sequence[Way]
    timings: Sequence[Timing]
    per_request: int


def verdict(ways: Sequence[Way]) -> str:
    """One sentence: does the join find more than each branch alone?"""
    *alone, both = ways
    best = max(alone, key=lambda way: way.quality.precision)
    wrong, before = 1.0 - both.quality.precision, 1.0 - best.quality.precision
    if wrong >= before:
        return f"Searching by {both.name} finds no more than searching by {best.name} alone."
    return (
        f"Searching by {both.name} beats each branch alone: {wrong:.1%} of the hits are wrong instead of {before:.1%} by {best.name} alone."
    )


def render_gallery(gallery: Gallery, cards: Mapping[str, Captioned]) -> str:
    """The page; `cards` holds every card that is named in the gallery."""
    names = list(gallery.ways[0].answers)[:SHOWN]
    pictures = {name: data_uri(card.sample) for name, card in cards.items()}
    return fill(
        "gallery.html",
        summary=f"{gallery.indexed:,} pictures with captions indexed. A caption says two things about the number and never names it. "
        "Solid frame: same number; dashed: another.",
        figures="\n".join(_figure(way) for way in gallery.ways),
        verdict=escape(verdict(gallery.ways)),
        timings=timing_rows(gallery.timings),
        batch=f"Search requests of up to {gallery.per_request} cards, of all three kinds. The two encoders work at the same time.",
        shown=f"The first {len(names)} of {gallery.ways[0].quality.queries:,} queries.",
        rows="\n".join(_row(name, gallery.ways, cards, pictures) for name in names),
    )


def _figure(way: Way) -> str:
    return f'<li><b>{way.quality.precision:.1%}</b> precision@10 <span class="soft">by {escape(way.name)}</span></li>'


def _row(name: str, ways: Sequence[Way], cards: Mapping[str, Captioned], pictures: Mapping[str, str]) -> str:
    query = cards[name]
    head = query_figure(query.sample, pictures[name], name)
    strips = "".join(_strip(query, way, cards, pictures) for way in ways)
    return f'<li class="row tall">{head}<div><p>“{escape(query.caption)}”</p>{strips}</div></li>'


def _strip(query: Captioned, way: Way, cards: Mapping[str, Captioned], pictures: Mapping[str, str]) -> str:
    hits = "".join(
        hit_figure(query.sample.label, hit, pictures[hit.name], cards[hit.name].caption) for hit in way.answers[query.sample.name]
    )
    return f'<p class="soft">by {escape(way.name)}</p><div class="hits">{hits}</div>'
