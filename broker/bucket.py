"""The flow's key-value bucket (ADR-8): definitions by version, which one is current, and what each executor last announced."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from . import subjects
from .bus import Bus
from .errors import NotFound, Unavailable
from .flow import Graph

CURRENT = "current"
POLL_S = 0.05


async def put(bus: Bus, flow: str, key: str, value: Any) -> None:
    await bus.store_wait(subjects.bucket_key(flow, key), json.dumps(value).encode(), bus.new_inbox())


async def get(bus: Bus, flow: str, key: str) -> Any | None:
    """The value under `key`, None when there is none. Raises `Unavailable` also when the flow was never provisioned."""
    raw = await bus.direct_get(subjects.bucket_stream(flow), subjects.bucket_key(flow, key))
    return None if raw is None else json.loads(raw)


async def publish_graph(bus: Bus, graph: Graph) -> None:
    """Store `graph` under its version and make it the current one. Older versions stay for requests still under way."""
    await put(bus, graph.flow, f"graph.{graph.version}", graph.to_dict())
    await put(bus, graph.flow, CURRENT, graph.version)
    bus.publish(subjects.control(graph.flow, "graph"), graph.version.encode())


async def load_graph(bus: Bus, flow: str, version: str | None = None) -> Graph:
    """The flow's definition of `version`, default the current one. Raises `NotFound`, `Unavailable`, `InvalidInput`."""
    version = subjects.token(version, "flow version") if version else await get(bus, flow, CURRENT)
    raw = await get(bus, flow, f"graph.{version}") if version else None
    if raw is None:
        raise NotFound(f"flow {flow!r} has no definition {version or ''} on this broker".replace("  ", " "))
    return Graph.from_dict(raw)


async def wait_for_graph(bus: Bus, flow: str) -> Graph:
    """The current definition, waiting until a deployer has stored one."""
    while True:
        try:
            return await load_graph(bus, flow)
        except (NotFound, Unavailable):
            await asyncio.sleep(POLL_S)
