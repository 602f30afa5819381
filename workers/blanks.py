"""Blank parts: when a request goes no further at one hop, what it would have brought to the places where parts meet is told there.

Otherwise the parts of its other branches and shards would lie there until they expire. A blank takes the place of the part; whoever comes
last finds it among the others, goes no further either, and removes them all (docs/decisions/0031-lifetimes.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from streamflow.broker.bus import Bus
from streamflow.broker.envelope import Claim, Envelope
from streamflow.broker.errors import OK, StreamflowError
from streamflow.broker.flow import Graph
from streamflow.broker.routing import Kind, Step
from streamflow.broker.unmet import blank, unmet, waiting

from .executions import Execution
from .flows import Flows
from .outgoing import Outgoing
from .reducer import Reducer

log = logging.getLogger(__name__)


class Blanks:
    """`due` tells what to `bring` when an execution's request ends with it."""

    def __init__(self, bus: Bus, flows: Flows, outgoing: Outgoing, spawn: Callable[[Coroutine[Any, Any, None]], Any]) -> None:
        self._flows = flows
        self._outgoing = outgoing
        self._reducer = Reducer(bus, spawn)

    def due(self, execution: Execution) -> tuple[Step, ...]:
        """The parts that others would wait for. None of a stream that this hop opened: nothing goes beside it. Of an order to bring a blank
        (`unmet.blanks`) just that, since there is one for each place."""
        envelope = execution.envelope
        if execution.stream is not None or not self._flows.knows(envelope.flow_version):
            return ()
        graph = self._flows.graph(envelope.flow_version)
        if not graph.meeting_places:
            return ()
        try:
            steps = self._outgoing.steps(envelope)
            return unmet(graph, steps, envelope.endpoint, envelope.target_executor) if envelope.status is OK else steps
        except StreamflowError:
            return ()

    async def bring(self, execution: Execution, steps: tuple[Step, ...]) -> None:
        """Returns when the broker has them, or has none of the parts that waited."""
        envelope = execution.envelope
        graph = self._flows.graph(envelope.flow_version)
        await asyncio.gather(*(self._bring(blank(envelope), step, graph, envelope.claim) for step in steps))

    async def _bring(self, part: Envelope, step: Step, graph: Graph, claim: Claim | None) -> None:
        try:
            completed = await self._reducer.arrive(part, step, graph)
        except StreamflowError as error:  # a full stream, mostly: make room
            log.warning("request %s: what waits for it at %s is removed: %s", part.request_id, step.executor, error)
            self._reducer.clear(part.flow, waiting(part, step)[1])
            return
        if completed is not None:
            self._reducer.remove(completed, claim if step.kind is Kind.GATHER else None)
