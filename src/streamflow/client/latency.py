"""`client.profiling()`: where the time of one request goes."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from .results import DataRequest


def breakdown(response: DataRequest, roundtrip_s: float) -> dict[str, float]:
    """Milliseconds of a round trip by place, from the routes of its answer: the first is the gateway, the others are executors.

    `Waiting in queues` is there only when the server reports when requests were enqueued (jina has no queue).
    """
    gateway, executors = response.routes[:1], response.routes[1:]
    server = sum((route.end_time - route.start_time) * 1000 for route in gateway)
    busy = {route.executor: (route.end_time - route.start_time) * 1000 for route in executors}
    waits = [(route.start_time - route.enqueued) * 1000 for route in executors if route.enqueued]
    parts = {
        "Roundtrip": roundtrip_s * 1000,
        "Client-server network": roundtrip_s * 1000 - server,
        "Server": server,
        "Gateway-executors network": server - sum(busy.values()) - sum(waits),
    }
    return parts | ({"Waiting in queues": sum(waits)} if waits else {}) | busy


def show(parts: dict[str, float], console: Console | None = None) -> None:
    """Print `parts` as a tree with each part's share of the one above it."""
    roundtrip, network, server, *inner = parts.items()
    tree = Tree(_line(*roundtrip, roundtrip[1]))
    tree.add(_line(*network, roundtrip[1]))
    branch = tree.add(_line(*server, roundtrip[1]))
    for name, spent in inner:
        branch.add(_line(name, spent, server[1]))
    (console or Console()).print(tree)


def _line(name: str, spent_ms: float, of_ms: float) -> Table:
    table = Table(show_header=False, box=None)
    table.add_row(name, f"[b]{spent_ms:.1f}[/b]ms", f"[dim]{100 * spent_ms / of_ms if of_ms else 0:.0f}%[/dim]")
    return table
