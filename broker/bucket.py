"""The flow's key-value bucket (ADR-8): definitions by version, which one is current, and what each executor last announced."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from . import subjects
from .bus import Bus
from .errors import AlreadyExists, NotFound, Unavailable
from .flow import Graph
from .hints import hint

CURRENT = "current"
POLL_S = 0.05


async def put(bus: Bus, flow: str, key: str, value: Any, *, keep_s: float = 0.0) -> None:
    """Set `key`; `keep_s`: delete it after so many seconds, unless it is set again."""
    await bus.store_wait(subjects.bucket_key(flow, key), json.dumps(value).encode(), bus.new_inbox(), keep_s=keep_s)


async def create(bus: Bus, flow: str, key: str, value: Any, *, keep_s: float = 0.0) -> bool:
    """Store `value` if nothing is under `key`; whether it was stored. `keep_s`: delete it after so many seconds."""
    try:
        await bus.store_first_wait(subjects.bucket_key(flow, key), json.dumps(value).encode(), keep_s=keep_s)
    except AlreadyExists:
        return False
    return True


async def get(bus: Bus, flow: str, key: str) -> Any | None:
    """The value under `key`, None when there is none. Raises `Unavailable` also when the flow was never provisioned."""
    raw = await bus.direct_get(subjects.bucket_stream(flow), subjects.bucket_key(flow, key))
    return json.loads(raw) if raw else None  # an empty value is being erased


async def keys(bus: Bus, flow: str, prefix: str) -> list[str]:
    """The keys under `prefix`, without it, sorted."""
    stem = subjects.bucket_key(flow, f"{prefix}.")
    info = await bus.api(f"STREAM.INFO.{subjects.bucket_stream(flow)}", {"subjects_filter": f"{stem}>"})
    return sorted(subject.removeprefix(stem) for subject in info["state"].get("subjects") or {})


async def delete(bus: Bus, flow: str, key: str) -> None:
    """`get` finds nothing from now on; `keys` and `create` may see the key for another second (`Bus.erase`)."""
    await bus.erase(subjects.bucket_key(flow, key))


async def publish_graph(bus: Bus, graph: Graph, *, current: bool = True) -> None:
    """Store `graph` under its version and make it the `current` one. Older versions stay for requests still under way."""
    await put(bus, graph.flow, f"graph.{graph.version}", graph.to_dict())
    if not current:
        return
    await put(bus, graph.flow, CURRENT, graph.version)
    bus.publish(subjects.control(graph.flow, "graph"), graph.version.encode())


async def load_graph(bus: Bus, flow: str, version: str | None = None) -> Graph:
    """The flow's definition of `version`, default the current one. Raises `NotFound`, `Unavailable`, `InvalidInput`."""
    try:
        version = subjects.token(version, "flow version") if version else await get(bus, flow, CURRENT)
    except Unavailable as error:
        raise Unavailable(f"flow {flow!r} is not to be found on this broker: {error}") from error
    raw = await get(bus, flow, f"graph.{version}") if version else None
    if raw is None:
        raise NotFound(f"flow {flow!r} has no definition {version or ''} on this broker".replace("  ", " "))
    return Graph.from_dict(raw)


async def require(bus: Bus, flow: str) -> None:
    """Return when `flow` was deployed on this broker; else raise `NotFound` that says which flows were. Raises `Unavailable`."""
    try:
        await bus.api(f"STREAM.INFO.{subjects.bucket_stream(subjects.token(flow, 'flow'))}")
    except NotFound as error:
        raise NotFound(f"flow {flow!r} is not on this broker{hint(flow, await _flows(bus))}") from error


async def _flows(bus: Bus) -> list[str]:
    """The flows on this broker; [] for one whom a key of its own may not let ask."""
    if bus.settings.broker_credentials:
        return []
    stem = subjects.bucket_stream("")
    names = (await bus.api("STREAM.NAMES", {"subject": subjects.all_buckets()})).get("streams") or ()
    return [name.removeprefix(stem) for name in names if name.startswith(stem)]


async def wait_for_graph(bus: Bus, flow: str, version: str = "") -> Graph:
    """The definition of `version`, default the current one, waiting until a deployer has stored it."""
    while True:
        try:
            return await load_graph(bus, flow, version)
        except (NotFound, Unavailable):
            await asyncio.sleep(POLL_S)
