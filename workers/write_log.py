"""The log of a stateful executor's writes: a stream for each shard, from which every replica reads all of them in one order.

A write is one message. One that is too large for that is cut into pieces which the broker stores as one (ADR-50), so that nothing lies
between them and a trimmed log never holds half a write.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from streamflow.broker import subjects
from streamflow.broker.blobs import PIECE_BYTES
from streamflow.broker.bus import Bus
from streamflow.broker.errors import StreamflowError, Unavailable
from streamflow.broker.reader import read

log = logging.getLogger(__name__)


class Trimmed(StreamflowError):
    """The next write was removed, behind a snapshot."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A write in the log. `sequence`: its place; `name` tells it from others, however often it was appended; `message`: its envelope.

    With `restores` it is no write: from here on the state is that of the snapshot whose manifest is the message.
    """

    sequence: int
    name: str
    message: bytes
    restores: bool = False


class WriteLog:
    """The log of one shard."""

    def __init__(self, bus: Bus, flow: str, executor: str, shard: int) -> None:
        self._bus = bus
        self._place = flow, executor, shard
        self.stream = subjects.write_log_stream(flow, executor, shard)

    async def append(self, name: str, message: bytes) -> int:
        """Store a write; the place in the log at which it is, or a later one. Raises `Overloaded` (full), `TooLarge`, `Unavailable`."""
        subject = self._subject("write", name)
        if len(message) <= PIECE_BYTES:
            return await self._bus.store_wait(subject, message, name)
        cuts = [message[start : start + PIECE_BYTES] for start in range(0, len(message), PIECE_BYTES)]
        piece = self._subject("piece", name)
        try:
            return await self._bus.store_together([*((piece, cut) for cut in cuts[:-1]), (subject, cuts[-1])])
        except StreamflowError as error:
            if type(error) is StreamflowError:  # a batch torn by a lost connection; an entry that was stored all the same is a duplicate
                raise Unavailable(str(error)) from error
            raise

    async def append_restore(self, name: str, message: bytes) -> int:
        """Store that all replicas go back to a snapshot; its place in the log, also when it was stored before."""
        subject = self._subject("restore", name)
        found = await self._bus.last_message(self.stream, subject)
        return found[0] if found is not None else await self._bus.store_wait(subject, message, name)

    async def last_sequence(self) -> int:
        """The place of the newest write that is stored. Raises `Unavailable`, `NotFound`."""
        info = await self._bus.api(f"STREAM.INFO.{self.stream}")
        return int(info["state"]["last_seq"])

    async def holds(self, name: str) -> bool:
        """Whether `name` was appended, and not trimmed since."""
        return await self._bus.last_message(self.stream, self._subject("write", name)) is not None

    async def entries(self, after: int) -> AsyncGenerator[Entry, None]:
        """All writes behind place `after`, in order, without end; one that somebody removed by hand is passed over.

        Raises `Trimmed` when the next one was cut off with all before it.
        """
        expected, pieces = after + 1, list[bytes]()
        kinds = {self._subject(kind, ""): kind == "restore" for kind in ("write", "restore")}
        async with aclosing(read(self._bus, self.stream, after=after, follow=True)) as messages:
            async for message in messages:
                if message.sequence != expected:
                    await self._explain(expected)
                    pieces.clear()
                expected = message.sequence + 1
                pieces.append(message.payload)
                stem, _, name = message.subject.rpartition(".")
                if (restores := kinds.get(f"{stem}.")) is not None:
                    yield Entry(message.sequence, name, b"".join(pieces), restores)
                    pieces.clear()

    async def _explain(self, missing: int) -> None:
        """Why the message at `missing` is not there. Raises `Trimmed`."""
        first = int((await self._bus.api(f"STREAM.INFO.{self.stream}"))["state"]["first_seq"])
        if first > missing:
            raise Trimmed(f"the log {self.stream} begins at {first}, {missing} was to be next")
        log.error("the write at %d was removed from %s: it is not applied", missing, self.stream)

    async def trim(self, sequence: int) -> None:
        """Remove all up to place `sequence`."""
        await self._bus.api(f"STREAM.PURGE.{self.stream}", {"seq": sequence + 1})

    def _subject(self, kind: str, name: str) -> str:
        return subjects.write_log(*self._place, kind, name)


def others(bus: Bus, flow: str, executor: str, shard: int | None, shards: int) -> Sequence[WriteLog]:
    """The logs of an executor's other shards."""
    return [WriteLog(bus, flow, executor, each) for each in range(shards) if each != shard]
