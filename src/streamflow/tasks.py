"""What the processes of a local flow do, each a function for `spawn.Child`: worker, gateway, and the tasks at the start and the end.

Called as `function(settings, report=report, **options)` in a process of its own; returns its exit code.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from streamflow.broker.errors import FlowError
from streamflow.broker.flow import Graph
from streamflow.broker.redact import shown_url

from .report import Report

log = logging.getLogger(__name__)

SETTLE_LOOK_S = 0.05
_LOCATED = re.compile(r"[^\s:]+\.\w+:\d+: ")  # "flow.yml:12: "
_SERVERS = {
    "http": "streamflow.gateway.http_server",
    "websocket": "streamflow.gateway.http_server",
    "grpc": "streamflow.gateway.grpc_server",
}


def work(
    settings: Any,
    *,
    report: Report,
    base_dir: str,
    uses: Any = None,
    uses_with: Mapping[str, Any] | None = None,
    extra_search_paths: Sequence[str] = (),
    flow_version: str = "",
    reload: bool = False,
    where: str = "",
    leases: int | None = None,
) -> int:
    """A worker process of a local flow. `where` is the executor's place in the flow file, `leases` the file that its companion watches."""
    from streamflow.workers import service  # docarray: 0.35 s

    settings = settings.model_copy(update={"flow_version": flow_version, **({"uses_with": dict(uses_with)} if uses_with else {})})
    # A byte code file is found stale by whole seconds and size: two quick edits of the same length would run the first one again.
    sys.dont_write_bytecode |= reload
    try:
        return int(service.run(settings, uses, report, base_dir, extra_search_paths, leases))
    except FlowError as error:
        raise FlowError(f"{where}: {error}" if where and not _LOCATED.match(str(error)) else str(error)) from error


def serve(
    settings: Any,
    *,
    report: Report,
    base_dir: str,
    uses: Any = None,
    uses_with: Mapping[str, Any] | None = None,
    py_modules: Sequence[str] = (),
    check_schemas: bool = True,
) -> int:
    """The gateway process of a flow; `uses` puts a class of the user's in the place of the built-in servers."""
    from streamflow.gateway import service  # nats: 0.15 s

    if uses is not None:
        from streamflow.gateways import host, loading  # docarray: 0.35 s

        kind = loading.find_gateway(uses, py_modules, [Path(base_dir)])
        return int(service.run(settings, report=report, check_schemas=check_schemas, open_ports=host.opener(kind, uses_with or {})))
    if uses_with:
        log.warning("gateway: uses_with has no effect without uses")
    for protocol in dict.fromkeys(listen.protocol for listen in settings.listen):
        import_module(_SERVERS[protocol])  # now, while the broker starts and the workers load, and not once the flow is known
    return int(service.run(settings, report=report, check_schemas=check_schemas))


def provision(settings: Any, *, report: Report, graph: Mapping[str, Any], current: bool = True) -> int:
    """The task that makes a flow known on its broker: streams, consumers, definition; unless `current`, nobody uses that yet."""
    from streamflow.broker import accounts, topology  # nats: 0.15 s
    from streamflow.broker.permissions import Role

    report("waiting", f"for the broker at {shown_url(settings.broker_url)}")
    settings = accounts.settings_for(settings, Role.PROVISIONER, graph["flow"])
    return _on_bus(settings, lambda bus: topology.provision(bus, Graph.from_dict(graph), settings, current=current))


def settle(settings: Any, *, report: Report, graph: Mapping[str, Any], only: frozenset[str] | None = None) -> int:
    """The task that ends when every queue of the flow (or of executors `only`) is empty and every request taken from one is settled."""
    from streamflow.broker import accounts, topology  # nats: 0.15 s
    from streamflow.broker.permissions import Role

    settings = accounts.settings_for(settings, Role.PROVISIONER, graph["flow"])

    async def wait(bus: Any) -> None:
        queues = topology.queues_of(Graph.from_dict(graph), settings, only)
        while True:
            infos = [await bus.api(f"STREAM.INFO.{name}") for name in queues]
            if not any(info["state"]["messages"] for info in infos):
                return
            await asyncio.sleep(SETTLE_LOOK_S)

    return _on_bus(settings, wait)


def _on_bus(settings: Any, task: Callable[[Any], Coroutine[Any, Any, None]]) -> int:
    """Run `task(bus)` on a connection of its own; a signal to stop cancels it."""
    from streamflow.broker import lifecycle
    from streamflow.broker.bus import Bus

    async def work() -> None:
        bus = await Bus.connect(settings, "supervisor")
        try:
            await task(bus)
        finally:
            await bus.close()

    async def main(stop: lifecycle.Stop) -> int:
        await stop.unless(work())
        return stop.code

    return lifecycle.run(main)
