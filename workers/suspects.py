"""Who kills workers? A request that comes again may be the culprit or only stood beside it.

The broker's delivery count blames all that were handed to a worker that died, also those that it had not started. So a redelivered
request is marked in the flow's bucket before it runs and unmarked when it ended: the marks count the deaths that happened while it ran,
and only they lead to quarantine. First deliveries, the usual case, cost nothing. What comes again for the first time runs beside its
like, as most deaths have other reasons; after a second one each runs alone (`handler.py`), so that the next blames nobody else.

A stream may run for minutes, beside others. One that got further than in the attempt before is not what kills: its count starts anew.
"""

from __future__ import annotations

from streamflow.broker import bucket, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import StreamflowError

KEEP_S = 7 * 86400.0  # a mark whose request ended where nobody knew of it


class Suspects:
    """Marks for the requests of one executor."""

    def __init__(self, bus: Bus, flow: str, executor: str) -> None:
        self._bus = bus
        self._flow = flow
        self._executor = executor

    async def deaths(self, envelope: Envelope) -> int:
        """Starts without an end that are recorded: not the first delivery's."""
        return (await self._known(envelope))[0]

    async def mark(self, envelope: Envelope) -> int:
        """Record that a redelivered request starts; return how many starts without an end came before, the first delivery's included."""
        starts, documents = await self._known(envelope)
        await bucket.put(self._bus, self._flow, self._key(envelope), [starts + 1, documents], keep_s=KEEP_S)
        return starts + 1

    async def advanced(self, envelope: Envelope, documents: int) -> None:
        """Record how many documents of a stream its gateway has when another attempt starts."""
        _, before = await self._known(envelope)
        if documents > before:
            await bucket.put(self._bus, self._flow, self._key(envelope), [1, documents], keep_s=KEEP_S)

    async def _known(self, envelope: Envelope) -> tuple[int, int]:
        """Starts without an end, and the documents that the last of them found done."""
        value = await bucket.get(self._bus, self._flow, self._key(envelope)) or 0
        return (int(value[0]), int(value[1])) if isinstance(value, list) else (int(value), 0)

    async def clear(self, envelope: Envelope) -> None:
        """The request ended: forget it. A mark left behind by an unreachable broker is harmless."""
        try:
            await self._bus.erase(subjects.bucket_key(self._flow, self._key(envelope)))
        except StreamflowError:
            return

    def _key(self, envelope: Envelope) -> str:
        return f"started.{self._executor}.{subjects.digest(envelope.ticket + envelope.part)}"
