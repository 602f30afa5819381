"""`streamflow hello digits`: index pictures, search for others, show what was found; by the public API only, as a user's program would."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from docarray import DocList
from rich.console import Console

from streamflow import Flow

from .executors import Encoder, Indexer, Picture, Reducer, Result
from .page import Found, Report, render
from .pictures import Sample, Skipped, bundled, own, split, to_matrix
from .scores import LEGEND, quality, timings
from .show import PROTOCOLS, addresses, print_addresses, print_timings, spans

INDEX_BATCH = 50  # pictures per request
SEARCH_BATCH = 9


@click.command()
@click.option(
    "--images", type=click.Path(path_type=Path), metavar="DIR", help="Your own pictures instead; labels from sub-folders or file names."
)
@click.option("--workdir", type=click.Path(path_type=Path), default="digits-result", show_default=True, help="Where the page goes.")
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@click.option("--keep", is_flag=True, help="Keep serving until Ctrl-C.")
@click.option("--limit", type=click.IntRange(12), help="Use at most so many pictures.")
def command(images: Path | None, workdir: Path, open_page: bool, keep: bool, limit: int | None) -> int:
    """Find handwritten digits that look alike: two encoders, an index in three shards, and a page with the result."""
    return run(images, workdir, open_page, keep, limit)


def main(arguments: Sequence[str] = (), **options: Any) -> int:
    """Exit code. `arguments`: words of the command line; `options`: the same by name; words win. Raises as `run`, and click's errors."""
    return int(command.main(list(arguments), "streamflow hello digits", standalone_mode=False, default_map=options) or 0)


def run(images: Path | None, workdir: Path, open_page: bool = False, keep: bool = False, limit: int | None = None) -> int:
    """Serve, index, search, report. Raises `StreamflowError` when there is nothing to search or the flow does not start."""
    console = Console(highlight=False)
    samples = _load(console, images)[:limit]
    workdir.mkdir(parents=True, exist_ok=True)
    _show(console, samples, workdir, open_page, keep)
    return 0


def _load(console: Console, images: Path | None) -> list[Sample]:
    if images is None:
        return bundled()
    samples, skipped = own(images)
    labels = len({sample.label for sample in samples})
    console.print(f"{images}: {len(samples)} pictures with {labels} labels; skipped: {len(skipped)}", markup=False, soft_wrap=True)
    for one in skipped[:20]:
        console.print(f"  skipped {_line(one, images)}", markup=False, soft_wrap=True)
    if len(skipped) > 20:
        console.print(f"  and {len(skipped) - 20} more")
    return samples


def _line(one: Skipped, folder: Path) -> str:
    return f"{one.path.relative_to(folder)}: {one.reason}"


def _show(console: Console, samples: list[Sample], workdir: Path, open_page: bool, keep: bool) -> None:
    stored, asked = split(samples)
    fit_file = (workdir / "fit.npy").resolve()
    np.save(fit_file, to_matrix(stored))
    console.print(
        f"{len(stored):,} pictures to index, {len(asked)} to search for; starting broker, gateway, six workers ...", soft_wrap=True
    )
    with _flow(fit_file) as flow:
        report = _run(flow, stored, asked)
        page = _write(workdir, report, samples)
        _print(console, report, page)
        if open_page:
            webbrowser.open(page.resolve().as_uri())
        if keep:
            print_addresses(console, addresses(flow), f"@{_query_file(workdir, asked[0])}")
            console.print("serving until Ctrl-C")
            flow.block()


def _flow(fit_file: Path) -> Flow:
    return (
        Flow(name="digits", protocol=PROTOCOLS, host="127.0.0.1")
        .add(name="encoder", uses=Encoder, uses_with={"fit_file": str(fit_file)}, replicas=2)
        .add(name="indexer", uses=Indexer, shards=3, polling={"/index": "ANY", "/search": "ALL"})
        .add(name="reducer", uses=Reducer)
    )


def _run(flow: Flow, stored: list[Sample], asked: list[Sample]) -> Report:
    flow.post("/index", _documents(stored), request_size=INDEX_BATCH, show_progress=True)
    responses = flow.post(
        "/search", _documents(asked), request_size=SEARCH_BATCH, show_progress=True, return_type=DocList[Result], return_responses=True
    )
    found = {doc.id: doc.matches for response in responses for doc in response.docs}
    answers = {one.name: [Found(hit.id, hit.label, hit.score) for hit in found[one.name]] for one in asked}
    return Report(
        indexed=len(stored),
        quality=quality(((one.label, [hit.label for hit in answers[one.name]]) for one in asked), (one.label for one in stored)),
        timings=timings(spans(responses)),
        per_request=SEARCH_BATCH,
        answers=answers,
    )


def _documents(samples: Iterable[Sample]) -> DocList[Picture]:
    return DocList[Picture]([Picture(id=one.name, pixels=one.pixels, label=one.label) for one in samples])


def _write(workdir: Path, report: Report, samples: Iterable[Sample]) -> Path:
    page = workdir / "index.html"
    page.write_text(render(report, {sample.name: sample for sample in samples}), "utf-8")
    return page


def _query_file(workdir: Path, sample: Sample) -> Path:
    """A request body for the curl example."""
    path = workdir / "query.json"
    path.write_text(json.dumps({"data": [{"pixels": sample.pixels.tolist()}], "parameters": {"limit": 3}}), "utf-8")
    return path


def _print(console: Console, report: Report, page: Path) -> None:
    figures = report.quality
    console.print(
        f"\n[bold]precision@10 {figures.precision:.1%}   recall@10 {figures.recall:.1%}[/] (ceiling {figures.recall_ceiling:.1%})"
    )
    for line in LEGEND:
        console.print(f"  {line}", style="dim", soft_wrap=True)
    print_timings(console, report.timings, report.per_request, "pictures")
    console.print(f"\npage   {page.resolve()}", markup=False, soft_wrap=True)
