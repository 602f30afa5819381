"""Requests whose deadline is near or has passed: what came is settled for where the flow allows it, and a late answer says why."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import EMPTY, Envelope, encode
from streamflow.broker.errors import DeadlineExceeded, StreamflowError
from streamflow.broker.flow import GATEWAY, Graph
from streamflow.broker.tasks import Tasks

from . import whereabouts
from .correlator import Correlator, Waiting
from .first_hops import Refusal, Refuse, failed

log = logging.getLogger(__name__)

PARTIAL_S = 0.2  # before the deadline, for a partial answer to be made and to arrive
EXPLAIN_S = 0.05  # for finding out where a late request is
EXPLAIN_AT_ONCE = 4  # late requests that are looked for; where many are late, looking for all of them would make more late


class Late:
    """Those of one gateway. `refuse` answers a request with an error."""

    def __init__(self, bus: Bus, graph: Callable[[], Graph], correlator: Correlator, tasks: Tasks, refuse: Refuse) -> None:
        self._bus = bus
        self._graph = graph
        self._correlator = correlator
        self._tasks = tasks
        self._refuse = refuse
        self._explaining = 0

    def explain(self, waiting: Waiting) -> None:
        """Answer DEADLINE_EXCEEDED, saying where the request is if the broker tells at once."""
        self._tasks.spawn(self._explain(waiting))

    async def _explain(self, waiting: Waiting) -> None:
        envelope, waited_s = waiting.envelope, time.monotonic() - waiting.since
        self._explaining += 1
        where = await self._where(envelope) if self._explaining <= EXPLAIN_AT_ONCE else ""
        self._explaining -= 1
        text = f"{envelope.endpoint}: no answer within {waited_s:.3f} s" + (f": {where}" if where else "")
        waiting.on_answer(failed(envelope, DeadlineExceeded(text)))

    async def _where(self, envelope: Envelope) -> str:
        """What a request waits for, in words; "" when nobody tells within `EXPLAIN_S`."""
        try:
            async with asyncio.timeout(EXPLAIN_S):
                if gaps := await whereabouts.gaps(self._bus, self._graph(), envelope):
                    return "; ".join(map(str, gaps))
                executor = await whereabouts.executor_of(self._bus, self._graph(), envelope)
                return f"it is at executor {executor!r}" if executor else ""
        except (StreamflowError, TimeoutError) as error:
            log.debug("request %s: nobody knows where it is: %s", envelope.request_id, error)
            return ""

    def settle_before_deadline(self, envelope: Envelope) -> None:
        """Shortly before it: have what waits at executors with `allow_partial` go on without what is missing."""
        left_s = max(0.0, envelope.deadline - time.time())
        early_s = min(PARTIAL_S, left_s / 4)
        # By its id, as the request may be answered long before.
        asyncio.get_running_loop().call_later(left_s - early_s, self._settle_if_open, envelope.request_id)

    def _settle_if_open(self, request_id: str) -> None:
        if (waiting := self._correlator.find(request_id)) is not None:
            self._tasks.spawn(self._settle(waiting.envelope))

    async def _settle(self, envelope: Envelope) -> None:
        graph = self._graph()
        for gap in await whereabouts.gaps(self._bus, graph, envelope):
            if gap.place == GATEWAY or not graph.node(gap.place).allow_partial:
                continue
            order = envelope._replace(
                body=b"", content_type=EMPTY, hop=gap.place, part=gap.kind, expected=gap.expected, missing=gap.missing
            )
            subject = subjects.work(envelope.flow, graph.host_of(gap.place), envelope.lane, envelope.request_id)
            message_id = subjects.message_id(envelope.request_id, gap.place, f"without {gap.missing}", envelope.run)
            self._bus.store(subject, encode(order), message_id, Refusal(self._refuse, envelope))
