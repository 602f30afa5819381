"""A gateway's own look at FL-12: it refuses to go on serving a flow whose executors do not fit, once it has heard of all of them.

Later misfits, such as in the middle of a rolling change, are logged and stop nobody. (A local flow is checked by its supervisor.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from streamflow.broker.announce import EndpointInfo, State
from streamflow.broker.errors import FlowError
from streamflow.broker.flow import Graph
from streamflow.broker.schema_check import require_fitting_schemas

from .catalog import Catalog

log = logging.getLogger(__name__)

LOOK_S = 0.25


class SchemaWatch:
    """`refuse` is called at most once, with a misfit that was there when every executor was first ready."""

    def __init__(self, catalog: Catalog, graph: Callable[[], Graph], refuse: Callable[[FlowError], None]) -> None:
        self._catalog = catalog
        self._graph = graph
        self._refuse = refuse
        self._said = ""

    async def run(self) -> None:
        """Wait until every executor is ready, then look; look again at each change."""
        # What the flow's bucket remembers may be of a former version, so only live workers count.
        while self._catalog.missing():
            await asyncio.sleep(LOOK_S)
        problem = self._problem()
        if problem is not None:
            self._refuse(problem)
            return
        self._catalog.on_change(self._look_again)

    def _problem(self) -> FlowError | None:
        try:
            require_fitting_schemas(self._graph(), self._offered())
        except FlowError as error:
            return error
        return None

    def _offered(self) -> dict[str, tuple[EndpointInfo, ...]]:
        """By executor what its newest ready worker serves."""
        return {said.executor: said.endpoints for said in self._catalog.replicas() if said.state is State.READY}

    def _look_again(self) -> None:
        problem = self._problem()
        if problem is not None and str(problem) != self._said:
            log.error("%s", problem)
        self._said = str(problem or "")
