"""A gateway process: connects, learns the flow, listens, announces its addresses, drains on SIGTERM. Wires the parts; no logic of its
own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from streamflow.broker import bucket, lifecycle, subjects
from streamflow.broker.accounts import settings_for
from streamflow.broker.announce import EndpointInfo
from streamflow.broker.bus import Bus
from streamflow.broker.errors import FlowError, NotFound, Unavailable
from streamflow.broker.exit_codes import USAGE
from streamflow.broker.flow import Graph
from streamflow.broker.lifecycle import Stop
from streamflow.broker.permissions import Role
from streamflow.broker.redact import shown_url
from streamflow.broker.settings import GatewaySettings

from .auth import is_closed, warn_if_closed
from .dispatch import Dispatcher
from .listening import Listening, Open, Server, open_admin, open_servers
from .quotas import LimitedDispatcher
from .rules import rules_of
from .schema_watch import SchemaWatch
from .turnstile import FairDispatcher

log = logging.getLogger(__name__)

Report = Callable[..., None]  # state (waiting, ready, draining), what for; `addresses`, `closed` (`auth.is_closed`) with ready


def run(settings: GatewaySettings, report: Report | None = None, *, check_schemas: bool = True, open_ports: Open = open_servers) -> int:
    """Serve until SIGTERM; the exit code says how it ended. `open_ports` puts other servers in the place of the built-in ones.

    Raises `Unavailable` (no broker), `RuntimeFailToStart` (a port is taken), and unless `check_schemas` is off `FlowError` when the flow's
    executors do not fit.
    """
    process = GatewayProcess(settings, report, check_schemas=check_schemas, open_ports=open_ports)
    return lifecycle.run(process.main, loop=str(settings.uvicorn_kwargs.get("loop", "")))


class GatewayProcess:
    """One gateway: `main` is its life."""

    def __init__(
        self, settings: GatewaySettings, report: Report | None = None, *, check_schemas: bool = True, open_ports: Open = open_servers
    ) -> None:
        self._settings = settings
        self._open_ports = open_ports
        self._check_schemas = check_schemas
        self._refusal: FlowError | None = None
        self._report: Report = report or _log_report
        self._servers: list[Server] = []
        self._admin: list[Server] = []

    async def main(self, stop: Stop) -> int:
        rules = rules_of(self._settings)  # an auth_file that cannot be used is told before anything is waited for
        warn_if_closed(self._settings)
        self._report("waiting", f"for the broker at {shown_url(self._settings.broker_url)}")
        self._settings = settings_for(self._settings, Role.GATEWAY, self._settings.flow)
        bus = await stop.unless(Bus.connect(self._settings, f"gateway {self._settings.flow}"))
        if bus is None:
            return stop.code
        bus.on_closed(lambda: stop.set("the broker connection is gone for good", lifecycle.FAILED))
        watching = asyncio.create_task(rules.watch(), name="access rules")
        try:
            self._report("waiting", f"for flow {self._settings.flow!r} to be deployed on {shown_url(self._settings.broker_url)}")
            graph = await stop.unless(bucket.wait_for_graph(bus, self._settings.flow))
            if graph is not None:
                await self._serve(bus, graph, stop)
            return stop.code
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await bus.close()

    async def _serve(self, bus: Bus, graph: Graph, stop: Stop) -> None:
        settings = self._settings
        dispatcher = _dispatcher(settings, bus, graph)
        await self._describe(bus, dispatcher, graph)
        await dispatcher.start()
        updates = GraphUpdates(bus, dispatcher)
        await updates.start()
        watch = SchemaWatch(dispatcher.catalog, lambda: dispatcher.graph, lambda error: self._refuse(error, stop))
        watching = asyncio.create_task(watch.run(), name="schema watch") if self._check_schemas else None
        try:
            addresses = await self._listen(dispatcher, bus, stop)
            self._report("ready", "", addresses=addresses, closed=is_closed(self._settings))
            await stop.wait()
            self._report("draining", stop.reason)
            await self._drain(dispatcher)
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            await asyncio.gather(*(server.stop(0.0) for server in [*self._servers, *self._admin]))
            await updates.stop()
            await dispatcher.close()
        if self._refusal is not None:
            raise self._refusal

    def _refuse(self, error: FlowError, stop: Stop) -> None:
        self._refusal = error
        stop.set("the flow's executors do not fit", USAGE)

    async def _describe(self, bus: Bus, dispatcher: Dispatcher, graph: Graph) -> None:
        """What the executors announced last time, so that documentation is there before their workers are."""
        for name in graph.names:
            try:
                known = await bucket.get(bus, graph.flow, f"executor.{name}")
                dispatcher.catalog.describe(name, (EndpointInfo(**raw) for raw in known or ()))
            except (Unavailable, TypeError) as error:
                log.warning("endpoints of %s are not known yet: %s", name, error)

    async def _listen(self, dispatcher: Dispatcher, bus: Bus, stop: Stop) -> dict[str, tuple[str, int]]:
        def info() -> Mapping[str, str]:
            return {"nats-server": bus.server_version, "flow": dispatcher.graph.flow, "open-requests": str(dispatcher.open_requests)}

        opened = await self._open_ports(dispatcher, self._settings, info, stop)
        self._servers = opened.servers
        admin = Listening() if self._settings.admin_port is None else await open_admin(dispatcher, self._settings, info, stop)
        self._admin = admin.servers
        return opened.addresses | admin.addresses

    async def _drain(self, dispatcher: Dispatcher) -> None:
        """Take no new connections, answer what is open, then leave."""
        limit = time.monotonic() + self._settings.drain_s
        await asyncio.gather(*(server.stop(self._settings.drain_s) for server in self._servers))
        self._servers.clear()
        while dispatcher.open_requests and time.monotonic() < limit:
            await asyncio.sleep(0.01)


def _dispatcher(settings: GatewaySettings, bus: Bus, graph: Graph) -> Dispatcher:
    """Raises `FlowError` when tenants are to take turns and nobody is asked who he is."""
    timeout_s = None if settings.timeout_send in (None, -1) else float(settings.timeout_send or 0) / 1000
    asks = bool(settings.auth_file or settings.ssl_ca)
    if not settings.fair_in_flight:
        return (LimitedDispatcher if asks else Dispatcher)(bus, graph, timeout_s=timeout_s)
    if not asks:
        raise FlowError("gateway: fair_in_flight shares between tenants, so callers must say who they are: set auth_file or ssl_ca")
    return FairDispatcher(bus, graph, timeout_s=timeout_s, places=settings.fair_in_flight)


class GraphUpdates:
    """Follows the flow's definition: a deployer that changes it tells on the control subject."""

    def __init__(self, bus: Bus, dispatcher: Dispatcher) -> None:
        self._bus = bus
        self._dispatcher = dispatcher
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._bus.listen(subjects.control(self._dispatcher.graph.flow, "graph"), lambda s, r, h, p: self._changed.set())
        self._bus.on_reconnect(self._changed.set)
        self._task = asyncio.create_task(self._follow(), name="graph updates")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                graph = await bucket.load_graph(self._bus, self._dispatcher.graph.flow)
            except (NotFound, Unavailable) as error:
                log.warning("the flow's new definition cannot be read: %s", error)
                continue
            if graph != self._dispatcher.graph:
                log.info("flow %s: new definition %s", graph.flow, graph.version)
                self._dispatcher.use_graph(graph)


def _log_report(state: str, message: str = "", **facts: Any) -> None:
    log.info("gateway %s %s %s", state, message, facts or "")
