"""What a gateway does once its broker is back: answers that went astray are asked for, requests that are nowhere are published again."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from itertools import compress

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import StreamflowError, Unavailable
from streamflow.broker.flow import Graph
from streamflow.broker.tasks import Tasks

from . import whereabouts
from .correlator import Correlator, Waiting

log = logging.getLogger(__name__)

ASK_AGAIN_S = 1.0
TOGETHER = 64  # requests that are looked for at once; one by one, thousands take longer than their clients wait


class AskingAgain:
    """`replies`: the subject on which this gateway hears its answers. `publish(waiting, envelope)` sends the request of `waiting` again."""

    def __init__(
        self,
        bus: Bus,
        graph: Callable[[], Graph],
        replies: str,
        correlator: Correlator,
        tasks: Tasks,
        publish: Callable[[Waiting, Envelope], None],
    ) -> None:
        self._bus = bus
        self._graph = graph
        self._replies = replies
        self._correlator = correlator
        self._tasks = tasks
        self._publish = publish
        self._asking: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """To be called after each reconnect."""
        for waiting in self._correlator.open():
            if waiting.sequence is not None:
                waiting.sequence.repeat()
        self._ask_for_answers()
        if self._asking is not None:
            self._asking.cancel()  # it goes by what was before
        self._asking = self._tasks.spawn(self._ask_again())

    def _ask_for_answers(self) -> None:
        """Have the workers send again what they answered while our connection was broken and the broker had not noticed."""
        try:
            self._bus.publish(subjects.control(self._graph().flow, "hello"), self._replies.encode())
        except StreamflowError as error:
            log.debug("the workers are not asked for their last answers: %s", error)

    async def _ask_again(self) -> None:
        """Look for each open request in the flow's queues and publish again what is nowhere.

        Twice, with a pause between, since a request is nowhere for a moment while its answer travels. Workers send their last answers
        again, so this is for the rare cases that a broker and a worker died together, or that parts of a stream went into a connection
        of ours that was broken.
        """
        await asyncio.sleep(ASK_AGAIN_S)
        gaps = [(waiting, waiting.sequence.gap) for waiting in self._correlator.open() if waiting.sequence is not None]
        lost = await self._nowhere(self._correlator.open())
        await asyncio.sleep(ASK_AGAIN_S)
        stuck = [waiting for waiting, gap in gaps if gap is not None and waiting.sequence is not None and waiting.sequence.gap == gap]
        found = [*await self._nowhere(lost), *stuck]
        for waiting in {waiting.envelope.request_id: waiting for waiting in found}.values():
            if waiting.first is not None and self._correlator.is_open(waiting):
                log.info("request %s was lost on its way: publishing it again", waiting.envelope.request_id)
                again = waiting.first._replace(run=secrets.token_hex(4))
                if waiting.sequence is not None:
                    waiting.sequence.restart(again.run)
                self._publish(waiting, again)

    async def _nowhere(self, open_now: list[Waiting]) -> list[Waiting]:
        """Those that no queue holds."""
        found: list[Waiting] = []
        for start in range(0, len(open_now), TOGETHER):
            some = open_now[start : start + TOGETHER]
            are_nowhere = await asyncio.gather(*map(self._is_nowhere, some))
            found += compress(some, are_nowhere)
        return found

    async def _is_nowhere(self, waiting: Waiting) -> bool:
        """Whether no queue holds a request that is still open. While nobody can tell (a cluster elects a leader) it is asked on."""
        while self._correlator.is_open(waiting):
            try:
                # Parts that wait for others do not count: what they wait for is in a queue until it has come.
                return await whereabouts.executor_of(self._bus, self._graph(), waiting.envelope) is None
            except Unavailable as error:
                log.debug("request %s: nobody knows yet where it is: %s", waiting.envelope.request_id, error)
                await asyncio.sleep(ASK_AGAIN_S)
        return False
