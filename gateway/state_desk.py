"""Snapshots of the flow's stateful executors, asked for by a client: taken now, and gone back to. All shards of an executor together."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from streamflow.broker import state_orders
from streamflow.broker.bus import Bus
from streamflow.broker.errors import AlreadyExists, InvalidInput, NotFound
from streamflow.broker.flow import Graph, Node
from streamflow.broker.state_orders import Kind, Progress, State, StateOrder
from streamflow.broker.subjects import token


class StateDesk:
    """Orders of one flow. An id is "<executor>/<name>"; that of a snapshot also names it when it is to be gone back to.

    All methods raise `Unavailable`.
    """

    def __init__(self, bus: Bus, graph: Callable[[], Graph]) -> None:
        self._bus = bus
        self._graph = graph
        self._last: dict[str, str] = {}

    async def snapshot(self, executor: str) -> str:
        """Have a snapshot taken; its id. `executor` may be "" where the flow has one stateful executor.

        Raises `NotFound` (no such executor), `InvalidInput` (which one?), `AlreadyExists` (one is under way).
        """
        node = self._node(executor)
        return await self._give(node, StateOrder(Kind.SNAPSHOT, node.name, secrets.token_hex(8)))

    async def restore(self, snapshot: str) -> str:
        """Have all replicas go back to the snapshot with this id; the id of that. Raises what `snapshot` raises."""
        executor, _, name = snapshot.partition("/")
        node = self._node(token(executor, "snapshot_file: executor"))
        return await self._give(node, StateOrder(Kind.RESTORE, node.name, secrets.token_hex(8), token(name, "snapshot_file: snapshot")))

    async def progress(self, kind: Kind, order_id: str) -> Progress | None:
        """How far an order is; None when none of this kind is known by this id (any more)."""
        executor, _, name = order_id.partition("/")
        try:
            node = self._node(token(executor, "executor"))
            order = StateOrder(kind, node.name, token(name, "id"))
        except (NotFound, InvalidInput):
            return None
        return await state_orders.progress(self._bus, self._graph().flow, order, node.shards)

    async def _give(self, node: Node, order: StateOrder) -> str:
        last = self._last.get(node.name, "")
        for kind in Kind if last else ():
            known = await self.progress(kind, last)
            if known is not None and known.state is State.RUNNING:
                raise AlreadyExists(f"{kind} {last} is in progress: another one can be started when it has ended")
        made = self._last[node.name] = f"{node.name}/{order.name}"
        await state_orders.give(self._bus, self._graph().flow, order, node.shards)
        return made

    def _node(self, name: str) -> Node:
        graph = self._graph()
        stateful = {node.name: node for node in graph.nodes if node.stateful and not node.external}
        known = ", ".join(stateful) or "none"
        if name and name not in stateful:
            raise NotFound(f"flow {graph.flow!r} has no stateful executor {name[:80]!r}; stateful are: {known}")
        if not name and len(stateful) != 1:
            wrong = InvalidInput if stateful else NotFound
            raise wrong(f"name the executor in the metadata x-streamflow-executor; stateful in flow {graph.flow!r} are: {known}")
        return stateful[name] if name else next(iter(stateful.values()))
