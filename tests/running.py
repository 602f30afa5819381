"""A flow inside the test's own loop: real broker, real workers and dispatcher, no processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from streamflow.broker.bus import Bus
from streamflow.broker.flow import Graph
from streamflow.broker.lifecycle import Stop
from streamflow.broker.settings import BrokerSettings, WorkerSettings
from streamflow.broker.topology import provision
from streamflow.gateway.dispatch import Dispatcher
from streamflow.workers.service import Worker
from tests.waiting import eventually


@dataclass
class Running:
    bus: Bus
    graph: Graph
    dispatcher: Dispatcher
    settings: BrokerSettings
    workers: list[tuple[Stop, asyncio.Task[int]]] = field(default_factory=list)

    def start_worker(self, name: str, uses: Any, **options: Any) -> tuple[Stop, asyncio.Task[int]]:
        settings = WorkerSettings(**self.settings.model_dump(), flow=self.graph.flow, name=name, **options)
        stop = Stop()
        worker = (stop, asyncio.create_task(Worker(settings, uses, None, None).main(stop)))
        self.workers.append(worker)
        return worker

    async def ready_with(self, counts: Mapping[str, int]) -> None:
        catalog = self.dispatcher.catalog
        await eventually(lambda: all(catalog.ready_counts()[name] >= count for name, count in counts.items()), what=f"workers {counts}")

    async def ready(self) -> None:
        await eventually(lambda: not self.dispatcher.catalog.missing(), what="every executor has a ready worker")


@asynccontextmanager
async def running(settings: BrokerSettings, graph: Graph, executors: Mapping[str, Any], **options: Any) -> AsyncIterator[Running]:
    """`graph` served by one worker for each of `executors` (name -> class); more may be started."""
    bus = await Bus.connect(settings, "test")
    await provision(bus, graph, settings)
    dispatcher = Dispatcher(bus, graph)
    await dispatcher.start()
    flow = Running(bus, graph, dispatcher, settings)
    for name, uses in executors.items():
        flow.start_worker(name, uses, **options)
    try:
        if set(executors) == set(graph.names):
            await flow.ready()
        yield flow
    finally:
        for stop, _ in flow.workers:
            stop.set("test over")
        await asyncio.gather(*(task for _, task in flow.workers))
        await dispatcher.close()
        await bus.close()
