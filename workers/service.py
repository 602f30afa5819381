"""A worker process: one replica of one executor. Wires the parts, announces itself, drains on SIGTERM.

`streamflow worker`, a local flow and a container all enter by `run`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from streamflow.broker import bucket, lifecycle, subjects
from streamflow.broker.accounts import settings_for
from streamflow.broker.announce import Announcement, State
from streamflow.broker.bus import Bus
from streamflow.broker.conditions import compile_condition
from streamflow.broker.drift import true_ack_wait_s
from streamflow.broker.errors import FlowError, NotFound, RuntimeFailToStart, StreamflowError
from streamflow.broker.flow import Graph, Node
from streamflow.broker.lifecycle import Stop
from streamflow.broker.permissions import Role
from streamflow.broker.pull import Pull
from streamflow.broker.redact import shown_url
from streamflow.broker.replies import ReplySender
from streamflow.broker.settings import WorkerSettings

from .batching import first_ahead
from .companion import watched
from .executor import Executor
from .feeder import Feeder
from .flows import Flows
from .handler import Handler
from .invoke import Invoker
from .keepalive import Keepalive
from .lanes import Lanes, Pace
from .leases import Leases
from .loader import load_executor
from .outgoing import Identity
from .retries import Retries
from .stateful import replica_of
from .watchdog import Watchdog

log = logging.getLogger(__name__)

Report = Callable[..., None]  # state (loading, waiting, ready, draining), what for; `endpoints` with ready


def run(
    settings: WorkerSettings,
    uses: Any = None,
    report: Report | None = None,
    base_dir: str | None = None,
    extra_search_paths: Sequence[str] = (),
    leases: int | None = None,
) -> int:
    """Serve until SIGTERM; the exit code says how it ended (`broker/exit_codes.py`).

    `uses` replaces `settings.uses` where it is a class. Files are looked for in `base_dir`, then in `extra_search_paths`. `leases`: the
    descriptor of a file that a process watches (`companion.py`); without it there will be one for this worker alone.
    Raises `RuntimeFailToStart`, `FlowError` (the executor), `Unavailable` (the broker).
    """
    with watched(leases) as mine:
        return lifecycle.run(lambda stop: Worker(settings, uses, report, base_dir, extra_search_paths, mine).main(stop))


class Worker:
    """One replica: `main` is its life."""

    def __init__(
        self,
        settings: WorkerSettings,
        uses: Any,
        report: Report | None,
        base_dir: str | None,
        extra_search_paths: Sequence[str] = (),
        leases: Leases | None = None,
    ) -> None:
        self._settings = settings
        self._uses = uses if uses is not None else settings.uses
        self._report = report or (lambda state, message, **_facts: log.info("%s %s", state, message))
        self._base_dir = base_dir
        self._extra_search_paths = extra_search_paths
        self._leases = leases
        self._state = State.STARTING

    async def main(self, stop: Stop) -> int:
        self._report("loading", "")
        with lifecycle.interruptible():
            self._executor = self._load()
        self._name = subjects.token(self._settings.name or self._default_name(), "executor")
        try:
            return await self._serve(stop)
        finally:
            self._executor.close()

    def _load(self) -> Executor:
        """On the loop's thread and before anything is pulled: a model that fails to load never takes a message."""
        settings = self._settings
        executor = load_executor(
            self._uses,
            uses_with=settings.uses_with,
            uses_metas=settings.uses_metas,
            uses_requests=settings.uses_requests,
            uses_dynamic_batching=settings.uses_dynamic_batching,
            py_modules=settings.py_modules,
            runtime_args={"name": settings.name, "replica": settings.replica, "shard_id": settings.shard, "flow": settings.flow},
            workspace=settings.workspace,
            base_dir=self._base_dir,
            extra_search_paths=self._extra_search_paths,
        )
        warmup = getattr(executor, "warmup", None)
        if warmup is not None:
            try:
                warmup()
            except Exception as error:
                raise RuntimeFailToStart(f"{type(executor).__name__}.warmup() failed: {error!r}") from error
        return executor

    def _default_name(self) -> str:
        return str(getattr(self._executor.metas, "name", "") or type(self._executor).__name__)

    async def _serve(self, stop: Stop) -> int:
        self._report("waiting", f"for the broker at {shown_url(self._settings.broker_url)}")
        self._settings = settings_for(self._settings, Role.WORKER, self._settings.flow, self._name)
        bus = await stop.unless(Bus.connect(self._settings, f"worker {self._settings.flow}/{self._name}"))
        if bus is None:
            return stop.code
        bus.on_closed(lambda: stop.set("the broker connection is gone for good", lifecycle.FAILED))
        try:
            flows = Flows(bus, self._settings.flow)
            self._report("waiting", f"for flow {self._settings.flow!r} to be deployed on {shown_url(self._settings.broker_url)}")
            graph = await stop.unless(flows.wait(self._settings.flow_version))
            if graph is None:
                return stop.code
            return await self._work(bus, flows, self._node(graph), stop)
        finally:
            await bus.close()

    def _node(self, graph: Graph) -> Node:
        try:
            node = graph.node(self._name)
        except NotFound as error:
            known = ", ".join(graph.names) or "none"
            raise FlowError(f"{error}; it has: {known} (name the executor with --name)") from error
        if self._settings.stateful and not node.stateful:
            raise FlowError(f"executor {self._name!r} is not stateful in flow {graph.flow!r}: write `stateful: true` there")
        if node.shards > 1 and not 0 <= self._settings.shard < node.shards:
            raise FlowError(
                f"executor {self._name!r} has {node.shards} shards: say which one this worker holds with --shard 0..{node.shards - 1}"
            )
        return node

    async def _sources(self, bus: Bus, node: Node) -> list[tuple[str, str]]:
        """Where online requests come from: the work queue, a shard's own place on the fan-out, what is to be tried again (also what waits
        since before the flow lost its `retry_on`)."""
        flow, sources = self._settings.flow, [(subjects.work_stream(self._settings.flow, self._name), subjects.work_durable("now"))]
        if node.shards > 1:
            sources.append((subjects.fan_out_stream(flow, self._name), subjects.shard_durable(self._settings.shard)))
        owners = (subjects.ANYBODY, str(self._settings.shard)) if node.shards > 1 else (subjects.ANYBODY,)
        again = [(subjects.retry_stream(flow, self._name), subjects.retry_durable(owner)) for owner in owners]
        return sources + [source for source in again if node.retry_on or await bus.consumer(*source) is not None]

    async def _work(self, bus: Bus, flows: Flows, node: Node, stop: Stop) -> int:
        settings = self._settings
        self._me = self._identity(node)
        watchdog = Watchdog(node.timeout_run_s) if node.timeout_run_s is not None else None
        self._invoker = self._invoker_for(node, watchdog)
        self._endpoints = self._invoker.describe()
        sources = await self._sources(bus, node)
        ack_wait_s = await true_ack_wait_s(bus, sources, node.ack_wait_s or settings.ack_wait_s)
        keepalive = Keepalive(settings, self._name, ack_wait_s, self._beat, watchdog, self._leases)
        pace = self._pace()
        handler = await self._handler_for(node, bus, flows, keepalive, pace, stop)
        if node.stateful and not await self._catch_up(node, bus, flows, handler, stop):
            handler.stop()
            return stop.code
        lanes = self._lanes(bus, sources, handler, pace, keepalive)
        await self._listen(bus, handler)
        await bucket.put(bus, settings.flow, f"executor.{self._name}", [asdict(info) for info in self._endpoints])
        keepalive.start()
        await lanes.start()
        feeder = Feeder(bus, settings.flow, self._me.instance, handler.outbox)
        await feeder.start()
        self._announce(bus, State.READY)
        self._report("ready", "", endpoints=[asdict(info) for info in self._endpoints])
        await stop.wait()
        await feeder.stop()
        await self._drain(bus, lanes, handler, keepalive, stop)
        return stop.code

    def _identity(self, node: Node) -> Identity:
        settings = self._settings
        shard = settings.shard if node.shards > 1 else None
        replica = f"{self._name}/rep-{settings.replica}" if shard is None else f"{self._name}/shard-{shard}/rep-{settings.replica}"
        return Identity(settings.flow, self._name, replica, secrets.token_hex(8), shard)

    def _invoker_for(self, node: Node, watchdog: Watchdog | None) -> Invoker:
        return Invoker(
            self._executor,
            exit_on_exceptions=self._settings.exit_on_exceptions,
            retry_on=node.retry_on,
            output_array_type=self._settings.output_array_type,
            watchdog=watchdog,
        )

    def _pace(self) -> Pace:
        specs = self._invoker.endpoints.values()
        return Pace(self._settings.concurrency, any(spec.is_async for spec in specs), max(map(first_ahead, specs), default=0))

    async def _handler_for(self, node: Node, bus: Bus, flows: Flows, keepalive: Keepalive, pace: Pace, stop: Stop) -> Handler:
        replies = ReplySender(bus, self._settings.flow)
        await replies.start()
        handler = Handler(
            self._me, bus, flows, self._invoker, replies, keepalive,
            max_deliver=node.max_deliver or self._settings.max_deliver,
            retries=Retries.of(node),
            condition=None if node.when is None else compile_condition(node.when, executor=node.name),
            on_time=pace.ended,
            on_waiting=pace.lend,
            on_fatal=lambda reason: stop.set(reason, lifecycle.FAILED),
        )  # fmt: skip
        await handler.start()
        return handler

    async def _catch_up(self, node: Node, bus: Bus, flows: Flows, handler: Handler, stop: Stop) -> bool:
        """Make it a replica of a stateful executor; False when it was stopped before it had all writes."""
        on_fatal = partial(stop.set, code=lifecycle.FAILED)
        handler.replica = replica_of(node, self._settings, self._me, bus, flows, self._invoker, handler.perform, on_fatal)
        await stop.unless(handler.replica.start(self._report))
        return not stop.is_set()

    def _lanes(self, bus: Bus, sources: Sequence[tuple[str, str]], handler: Handler, pace: Pace, keepalive: Keepalive) -> Lanes:
        lanes = Lanes(handler.accept, pace, keepalive)
        online = [Pull(bus, stream, durable, lanes.take_online, on_settled=lanes.online_settled) for stream, durable in sources]
        queue = subjects.work_stream(self._settings.flow, self._name)
        bulk = Pull(bus, queue, subjects.work_durable("bulk"), lanes.take_bulk, on_ran=lanes.advance, on_settled=lanes.advance)
        lanes.bind(online, bulk)
        return lanes

    async def _listen(self, bus: Bus, handler: Handler) -> None:
        flow = self._settings.flow
        await bus.listen(subjects.control(flow, "cancel"), lambda s, r, h, payload: handler.cancel(payload.decode(errors="replace")))
        await bus.listen(subjects.control(flow, "hello"), lambda s, r, h, p: bus.publish(*self._beat()))

    async def _drain(self, bus: Bus, lanes: Lanes, handler: Handler, keepalive: Keepalive, stop: Stop) -> None:
        """Take nothing new, finish what is here, leave. What does not finish in time goes to another replica."""
        self._report("draining", stop.reason)
        self._announce(bus, State.DRAINING)
        await lanes.stop()
        handler.hurry()
        limit = time.monotonic() + self._settings.drain_s
        while (lanes.held or not handler.idle()) and time.monotonic() < limit:
            await asyncio.sleep(0.01)
        if lanes.held:
            log.warning(
                "%s: %d requests did not end within %g s; other replicas get them", self._me.replica, lanes.held, self._settings.drain_s
            )
        handler.stop()
        await asyncio.get_running_loop().run_in_executor(None, keepalive.stop)
        self._announce(bus, State.GONE)

    # what it says about itself

    def _announce(self, bus: Bus, state: State) -> None:
        self._state = state
        try:
            bus.publish(*self._beat())
        except StreamflowError as error:
            log.debug("not announced: %s", error)

    def _beat(self) -> tuple[str, bytes]:
        settings = self._settings
        announcement = Announcement(
            settings.flow, self._name, self._me.instance, settings.replica, settings.shard, self._state,
            platform.node(), os.getpid(), endpoints=self._endpoints,
        )  # fmt: skip
        return subjects.control(settings.flow, "announce"), announcement.encode()
