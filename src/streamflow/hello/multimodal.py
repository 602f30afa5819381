"""`streamflow hello multimodal`: pictures and captions encoded in two branches, joined, and searched by either or both."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from docarray import DocList
from rich.console import Console
from rich.table import Table

from streamflow import Flow

from .branches import CaptionEncoder, Card, CardIndexer, PictureEncoder
from .captions import Captioned, captioned
from .executors import Result
from .gallery import Gallery, Way, render_gallery, verdict
from .page import Found
from .pictures import bundled, split, to_matrix
from .scores import LEGEND, quality, timings
from .show import PROTOCOLS, addresses, print_addresses, print_timings, spans

INDEX_BATCH = 50  # cards per request
SEARCH_BATCH = 9
# How to ask, and which parts of a card are asked with: the branches alone, then what the join makes of them.
WAYS = (("caption", {"caption"}), ("picture", {"pixels"}), ("both", {"caption", "pixels"}))
RIDDLE = "odd, above six"


@click.command()
@click.option("--workdir", type=click.Path(path_type=Path), default="multimodal-result", show_default=True, help="Where the page goes.")
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@click.option("--keep", is_flag=True, help="Keep serving until Ctrl-C.")
@click.option("--limit", type=click.IntRange(12), help="Use at most so many pictures.")
def command(workdir: Path, open_page: bool, keep: bool, limit: int | None) -> int:
    """Search by picture, by caption and by both: two branches that are joined, and a page that compares them."""
    return run(workdir, open_page, keep, limit)


def main(arguments: Sequence[str] = (), **options: Any) -> int:
    """Exit code. `arguments`: words of the command line; `options`: the same by name; words win. Raises as `run`, and click's errors."""
    return int(command.main(list(arguments), "streamflow hello multimodal", standalone_mode=False, default_map=options) or 0)


def run(workdir: Path, open_page: bool = False, keep: bool = False, limit: int | None = None) -> int:
    """Serve, index, search, report. Raises `StreamflowError` when the flow does not start."""
    console = Console(highlight=False)
    samples = bundled()[:limit]
    cards = {card.sample.name: card for card in captioned(samples)}
    stored, asked = split(samples)
    workdir.mkdir(parents=True, exist_ok=True)
    fit_file = (workdir / "fit.npy").resolve()
    np.save(fit_file, to_matrix(stored))
    console.print(
        f"{len(stored):,} cards to index, {len(asked)} to search for in three ways; starting broker, gateway, three workers ...",
        soft_wrap=True,
    )
    with _flow(fit_file) as flow:
        gallery = _run(flow, [cards[one.name] for one in stored], [cards[one.name] for one in asked])
        page = workdir / "index.html"
        page.write_text(render_gallery(gallery, cards), "utf-8")
        _print(console, gallery, page)
        if open_page:
            webbrowser.open(page.resolve().as_uri())
        if keep:
            body = json.dumps({"data": [{"caption": RIDDLE}], "parameters": {"limit": 3}})
            print_addresses(console, addresses(flow), f"'{body}'")
            console.print("serving until Ctrl-C")
            flow.block()
    return 0


def _flow(fit_file: Path) -> Flow:
    return (
        Flow(name="multimodal", protocol=PROTOCOLS, host="127.0.0.1")
        .add(name="picture", uses=PictureEncoder, uses_with={"fit_file": str(fit_file)}, needs="gateway")
        .add(name="caption", uses=CaptionEncoder, needs="gateway")
        .add(name="indexer", uses=CardIndexer, needs=["picture", "caption"])
    )


def _run(flow: Flow, stored: list[Captioned], asked: list[Captioned]) -> Gallery:
    flow.post("/index", _documents(stored, {"caption", "pixels"}), request_size=INDEX_BATCH, show_progress=True)
    ways, responses = [], []
    for name, parts in WAYS:
        documents = _documents(asked, parts)
        answered = flow.post(
            "/search", documents, request_size=SEARCH_BATCH, show_progress=True, return_type=DocList[Result], return_responses=True
        )
        ways.append(_way(name, answered, stored, asked))
        responses += answered
    return Gallery(len(stored), ways, timings(spans(responses)), SEARCH_BATCH)


def _way(name: str, responses: Sequence[Any], stored: list[Captioned], asked: list[Captioned]) -> Way:
    found = {doc.id: doc.matches for response in responses for doc in response.docs}
    answers = {one.sample.name: [Found(hit.id, hit.label, hit.score) for hit in found[one.sample.name]] for one in asked}
    rows = ((one.sample.label, [hit.label for hit in answers[one.sample.name]]) for one in asked)
    return Way(name, quality(rows, (one.sample.label for one in stored)), answers)


def _documents(cards: list[Captioned], parts: set[str]) -> DocList[Card]:
    """`cards` with only `parts` of them."""
    return DocList[Card](
        [
            Card(
                id=one.sample.name,
                label=one.sample.label,
                pixels=one.sample.pixels if "pixels" in parts else None,
                caption=one.caption if "caption" in parts else "",
            )
            for one in cards
        ]
    )


def _print(console: Console, gallery: Gallery, page: Path) -> None:
    console.print()
    console.print(_table(gallery.ways))
    console.print(f"[bold]{verdict(gallery.ways)}[/]", soft_wrap=True)
    for line in LEGEND:
        console.print(f"  {line}", style="dim", soft_wrap=True)
    print_timings(console, gallery.timings, gallery.per_request, "cards")
    console.print(f"\npage   {page.resolve()}", markup=False, soft_wrap=True)


def _table(ways: Sequence[Way]) -> Table:
    table = Table(box=None)
    table.add_column("searched by")
    for name in ("precision@10", "recall@10", "ceiling"):
        table.add_column(name, justify="right")
    for way in ways:
        table.add_row(way.name, f"{way.quality.precision:.1%}", f"{way.quality.recall:.1%}", f"{way.quality.recall_ceiling:.1%}")
    return table
