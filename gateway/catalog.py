"""What the live workers of a flow say about themselves, kept for readiness, routes and documentation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from streamflow.broker.announce import ALIVE_S, Announcement, EndpointInfo, State
from streamflow.broker.errors import InvalidInput
from streamflow.broker.flow import Graph

DEFAULT = "/default"


class Catalog:
    """The announcements heard, newest per worker. Workers silent for `ALIVE_S` seconds count as gone."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._heard: dict[str, tuple[float, Announcement]] = {}
        self._described: dict[str, tuple[EndpointInfo, ...]] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._absent_since: dict[str, float] = {}

    @property
    def flow(self) -> str:
        return self._graph.flow

    @property
    def executors(self) -> tuple[str, ...]:
        """Names in flow order."""
        return self._graph.names

    def use_graph(self, graph: Graph) -> None:
        self._graph = graph
        self._changed()

    def on_change(self, callback: Callable[[], None]) -> None:
        """`callback` runs when the endpoints or schemas of the flow may have changed."""
        self._callbacks.append(callback)

    def hear(self, data: bytes) -> None:
        """Take in one announcement; anything else is ignored."""
        try:
            announcement = Announcement.decode(data)
        except InvalidInput:
            return
        if announcement.state is State.GONE:
            self._heard.pop(announcement.instance, None)
        else:
            self._heard[announcement.instance] = (time.monotonic(), announcement)
        self.describe(announcement.executor, announcement.endpoints)

    def describe(self, executor: str, endpoints: Iterable[EndpointInfo]) -> None:
        """The endpoints of `executor`, as its workers or the flow's bucket tell; they outlive the workers."""
        endpoints = tuple(endpoints)
        if endpoints != self._described.get(executor):
            self._described[executor] = endpoints
            self._changed()

    def _changed(self) -> None:
        for callback in self._callbacks:
            callback()

    def replicas(self) -> list[Announcement]:
        """Workers heard of in the last `ALIVE_S` seconds."""
        oldest = time.monotonic() - ALIVE_S
        for instance in [key for key, (heard, _) in self._heard.items() if heard < oldest]:
            del self._heard[instance]
        return [announcement for _, announcement in self._heard.values()]

    def ready_counts(self) -> dict[str, int]:
        """Ready replicas by executor, 0 included."""
        counts = dict.fromkeys(self.executors, 0)
        for announcement in self.replicas():
            if announcement.state is State.READY and announcement.executor in counts:
                counts[announcement.executor] += 1
        return counts

    def missing(self) -> list[str]:
        """Executors without a ready replica (external ones are someone else's business); [] = the flow is ready."""
        return [name for name, count in self.ready_counts().items() if not count and not self._graph.node(name).external]

    def absent(self, longer_than_s: float) -> set[str]:
        """Executors that have had no worker at all, not even a draining or starting one, for so long."""
        now = time.monotonic()
        alive = {announcement.executor for announcement in self.replicas()}
        gone = {node.name for node in self._graph.nodes if node.name not in alive and not node.external}
        self._absent_since = {name: self._absent_since.get(name, now) for name in gone}
        return {name for name, since in self._absent_since.items() if now - since >= longer_than_s}

    def endpoints(self) -> dict[str, EndpointInfo]:
        """Every endpoint of the flow: asked with what its first executor takes, answered with what its last one gives."""
        merged: dict[str, EndpointInfo] = {}
        for name in self.executors:
            for info in self._described.get(name, ()):
                known = merged.get(info.name)
                merged[info.name] = info if known is None else _chained(known, info)
        return merged


def _chained(first: EndpointInfo, then: EndpointInfo) -> EndpointInfo:
    return replace(
        first,
        response_schema=then.response_schema,
        parameters_schema=first.parameters_schema or then.parameters_schema,
        streaming=first.streaming or then.streaming,
        write=first.write or then.write,
        description=first.description or then.description,
    )
