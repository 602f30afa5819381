"""What the live workers offer, as the protocol files ask for it: endpoints by any spelling, the answer to an unknown one, readiness."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.errors import OK, Code, NotFound, Status
from streamflow.broker.subjects import work_stream

from .catalog import Catalog

FALLBACK = "/default"  # the name under which a flow with `@requests` without `on` lists it
_SHOWN_ENDPOINTS = 50


class View:
    """The catalog, cached until the workers change, and whether this gateway takes requests.

    `draining` is set once the gateway stops: streams stop reading, readiness turns false.
    """

    def __init__(self, catalog: Catalog, connected: Callable[[], bool]) -> None:
        self._catalog = catalog
        self._connected = connected
        self.draining = asyncio.Event()
        self.endpoints: dict[str, EndpointInfo] = {}
        self.version = 0
        self._refresh()
        catalog.on_change(self._refresh)

    def _refresh(self) -> None:
        self.endpoints = self._catalog.endpoints()
        self.version += 1

    def name(self, endpoint: str) -> str:
        """The announced endpoint that a client means: `foo`, `/foo` and `/foo/` are the same."""
        if endpoint in self.endpoints:
            return endpoint
        bare = endpoint.strip("/")
        return bare if bare in self.endpoints else f"/{bare}"

    def unknown(self, endpoint: str) -> NotFound | None:
        """The refusal of an endpoint that no executor serves; None when one does, nobody can know yet, or the flow has none at all."""
        if endpoint in self.endpoints or FALLBACK in self.endpoints or not self.endpoints:
            return None
        if self._catalog.missing():
            return None
        known = sorted(self.endpoints)
        names = ", ".join(known[:_SHOWN_ENDPOINTS])
        return NotFound(f"no endpoint {endpoint[:200]!r} in flow {self._catalog.flow!r}; known: {names}")

    def readiness(self) -> Status:
        """OK while requests can be served; UNAVAILABLE naming what is missing (Jina's dry run answers the same)."""
        if self.draining.is_set():
            return _down("the gateway is shutting down")
        if not self._connected():
            return _down("the gateway has no connection to the broker")
        missing = [
            f"Communication error with deployment {name} at address(es) {{{work_stream(self._catalog.flow, name)}}}. "
            "It has no ready replica: worker(s) may be down or still starting."
            for name in self._catalog.missing()
        ]
        return _down(" ".join(missing)) if missing else OK


def _down(text: str) -> Status:
    return Status(Code.UNAVAILABLE, f"failed to connect to all addresses |Gateway: {text}", "InternalNetworkError", (text,))
