"""The definitions that this worker knows, by version: a request is routed by the one it was accepted with.

Its own flow's, and those of other flows that use it as an external executor.
"""

from __future__ import annotations

from streamflow.broker import bucket
from streamflow.broker.bus import Bus
from streamflow.broker.flow import Graph


class Flows:
    """Definitions by version. `graph(version)` never waits: `learn` it first when `knows` says no."""

    def __init__(self, bus: Bus, flow: str) -> None:
        self._bus = bus
        self._flow = flow
        self._graphs: dict[str, Graph] = {}

    async def wait(self, version: str = "") -> Graph:
        """The definition of `version`, default the current one, waiting until a deployer has stored it."""
        graph = await bucket.wait_for_graph(self._bus, self._flow, version)
        self._graphs[graph.version] = graph
        return graph

    def knows(self, version: str) -> bool:
        return version in self._graphs

    async def learn(self, version: str, flow: str = "") -> None:
        """Fetch a definition of `flow` (default: the own one) that is new here. Raises `NotFound`, `Unavailable`."""
        if version not in self._graphs:
            self._graphs[version] = await bucket.load_graph(self._bus, flow or self._flow, version)

    def graph(self, version: str) -> Graph:
        return self._graphs[version]
