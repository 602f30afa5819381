"""What the demonstrations print alike: addresses, and where the time went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from streamflow import Flow

from .scores import Span, Timing

PROTOCOLS = ["grpc", "http"]


def addresses(flow: Flow) -> dict[str, str]:
    """URL by protocol of a flow that serves `PROTOCOLS`."""
    ports = flow.port if isinstance(flow.port, list) else [flow.port]
    return {protocol: f"{protocol}://127.0.0.1:{port}" for protocol, port in zip(PROTOCOLS, ports, strict=True)}


def spans(responses: Iterable[Any]) -> Iterator[Span]:
    """Every hop of every response."""
    for response in responses:
        for route in response.routes:
            yield Span(route.executor, route.enqueued, route.start_time, route.end_time)


def print_timings(console: Console, timings: Sequence[Timing], per_request: int, what: str) -> None:
    console.print(
        f"\ntime per search request of up to {per_request} {what} (the gateway's is all of it; waited = in the queue)", soft_wrap=True
    )
    table = Table(box=None)
    table.add_column("hop")
    for name in ("requests", "median ms", "slowest ms", "waited ms"):
        table.add_column(name, justify="right")
    for one in timings:
        table.add_row(one.name, str(one.requests), f"{one.median_ms:.1f}", f"{one.worst_ms:.1f}", one.waited)
    console.print(table)


def print_addresses(console: Console, urls: dict[str, str], body: str) -> None:
    """Where the flow serves, with a search to try; `body` is what curl's `-d` takes, quoted for a shell."""
    http = urls["http"]
    console.print(f"\ngRPC   {urls['grpc']}\nHTTP   {http}   (documentation: {http}/docs)", soft_wrap=True)
    console.print(f"curl   curl -s {http}/search -H 'Content-Type: application/json' -d {body}", markup=False, soft_wrap=True)
