"""Where an open request is right now, read off the broker: waiting at an executor, as parts that wait for others, or nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import NotFound
from streamflow.broker.flow import GATEWAY, Graph, Node


async def executor_of(bus: Bus, graph: Graph, envelope: Envelope) -> str | None:
    """The executor at which the request waits or runs, the furthest one; None when it is in no queue. Raises `Unavailable`."""
    flow, request_id = envelope.flow, envelope.request_id
    for node in reversed(graph.nodes):
        if node.external:
            continue
        places = [(subjects.work_stream(flow, node.name), subjects.work(flow, node.name, envelope.lane, request_id))]
        if node.shards > 1:
            places.append((subjects.fan_out_stream(flow, node.name), subjects.fan_out(flow, node.name, request_id)))
        if node.retry_on:
            places += [(subjects.retry_stream(flow, node.name), subject) for subject in _retries(flow, node, request_id)]
        for stream, subject in places:
            if await bus.direct_get(stream, subject) is not None:
                return node.name
    return None


def _retries(flow: str, node: Node, request_id: str) -> Iterator[str]:
    for owner in (subjects.ANYBODY, *(node.shard_names if node.shards > 1 else ())):
        yield subjects.retry(flow, node.name, owner, request_id)
        yield subjects.again(flow, node.name, owner, request_id)


@dataclass(frozen=True, slots=True)
class Gap:
    """Parts of one request that wait at `place` for `missing` ones."""

    place: str
    kind: str  # join or gather
    expected: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        names = ", ".join(self.missing)
        if self.kind == "gather":
            return f"shard {names} of executor {self.place!r} did not answer"
        where = "the answer" if self.place == GATEWAY else f"executor {self.place!r}"
        return f"{where} still waits for branch {names}"


async def gaps(bus: Bus, graph: Graph, envelope: Envelope) -> list[Gap]:
    """Where branches and shards of the request wait for others; [] when none does. Raises `Unavailable`."""
    found = []
    for place in graph.meeting_places:
        waiting = await _waiting_parts(bus, envelope, place)
        for kind, expected in _expected(graph, place).items():
            here = waiting.get(kind, set())
            missing = tuple(name for name in expected if name not in here)
            if here and missing:
                found.append(Gap(place, kind, expected, missing))
    return found


async def _waiting_parts(bus: Bus, envelope: Envelope, place: str) -> dict[str, set[str]]:
    """Names of the parts of the request that lie at `place`, by kind."""
    subject = subjects.part(envelope.flow, place, envelope.request_id, "*", "*")
    try:
        info = await bus.api(f"STREAM.INFO.{subjects.part_stream(envelope.flow, place)}", {"subjects_filter": subject})
    except NotFound:
        return {}
    found: dict[str, set[str]] = {}
    for each in info["state"].get("subjects") or {}:
        *_, kind, name = each.split(".")
        found.setdefault(kind, set()).add(name)
    return found


def _expected(graph: Graph, place: str) -> dict[str, tuple[str, ...]]:
    if place == GATEWAY:
        return {"join": tuple(node.name for node in graph.leaves)}
    node = graph.node(place)
    return {"join": node.needs, "gather": node.shard_names}
