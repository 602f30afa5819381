"""Who waits for which batch, and when a batch is due. No threads, no clock of its own: `batch_runner.py` owns and drives it.

A batch holds documents of requests with equal parameters for one endpoint, oldest first. It is cut by documents, not by requests: a large
request fills several batches, and the room beside its last documents goes to whoever came next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamflow.broker.codec import Decoded

from .decorators import Batching
from .endpoints import EndpointSpec
from .executions import Execution
from .returns import CallResult

MAX_REST_S = 60.0  # a timeout may be any number, a lock's or a timer's may not


@dataclass(slots=True, eq=False)
class Member:
    """One request on its way through one or more batches."""

    execution: Execution
    spec: EndpointSpec
    key: Hashable  # requests with equal keys may share a call
    arrived: float  # time.monotonic()
    decoded: Decoded
    parameters: dict[str, Any]  # of the request, for the next hop
    own: dict[str, Any]  # as this executor sees them
    sizes: Sequence[float]  # of each document, in units of `preferred_batch_size`
    given: int = 0  # documents that were put into a batch
    finished: int = 0  # documents that came back
    results: list[tuple[int, CallResult]] = field(default_factory=list)  # (position of the first document, result)
    started: bool = False
    closed: bool = False  # it has its outcome
    _rows: list[Any] | None = None

    @property
    def rows(self) -> list[Any]:
        """The documents as a plain list, which is cheap to cut."""
        if self._rows is None:
            self._rows = list(self.decoded.docs)
        return self._rows

    def renew(self, decoded: Decoded) -> None:
        """Take documents that no call has seen."""
        self.decoded = decoded
        self._rows = None

    @property
    def options(self) -> Batching:
        assert self.spec.batching is not None
        return self.spec.batching

    def give(self, room: float, *, first: bool) -> Piece | None:
        """The next documents, as many as fit into `room` (at least one when they are the `first` in the batch); None when none does."""
        start = stop = self.given
        while stop < len(self.sizes) and (self.sizes[stop] <= room or (first and stop == start)):
            room -= self.sizes[stop]
            stop += 1
        if stop == start and self.sizes:
            return None
        self.given = stop
        return Piece(self, start, stop)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Documents `start` to `stop` of a member, all of them or a part; none, of a request without documents."""

    member: Member
    start: int
    stop: int

    @property
    def count(self) -> int:
        return self.stop - self.start

    @property
    def size(self) -> float:
        return sum(self.member.sizes[self.start : self.stop])

    @property
    def docs(self) -> Any:
        docs = self.member.decoded.docs
        return docs if self.count == len(docs) else type(docs).construct(self.member.rows[self.start : self.stop])


class Waiting:
    """Members in groups that may share a call. Not safe from two threads."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group] = {}
        self.hurry = False  # the worker drains: nothing waits for company any more

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, member: Member) -> bool:
        """Whether its group has enough for a batch now, so that it is time to run one."""
        group = self._groups.get(member.key)
        if group is None:
            group = self._groups[member.key] = _Group(member.options)
        group.members.append(member)
        group.size += sum(member.sizes)
        return group.is_full and not group.options.flush_all

    def take(self, now: float) -> list[Piece]:
        """The batch that waits longest of those that are due; empty when none is."""
        key = self._next(now)
        if key is None:
            return []
        group = self._groups[key]
        pieces = group.cut()
        if not group.members:
            del self._groups[key]
        return pieces

    def due_since(self, now: float) -> float | None:
        """Arrival of the oldest request in the batch that `take` would give, None when no batch is due."""
        key = self._next(now)
        return None if key is None else self._groups[key].since

    def rest_s(self, now: float) -> float | None:
        """Seconds until a batch is due if nobody else comes, or until it is worth looking again; None when nobody waits."""
        if not self._groups:
            return None
        return min(MAX_REST_S, *(max(0.0, group.due_at(self.hurry) - now) for group in self._groups.values()))

    def _next(self, now: float) -> Hashable:
        due = [key for key, group in self._groups.items() if group.due_at(self.hurry) <= now]
        return min(due, key=lambda key: self._groups[key].since) if len(due) > 1 else due[0] if due else None


class _Group:
    """Requests for one endpoint with equal parameters, in the order they came."""

    def __init__(self, options: Batching) -> None:
        self.options = options
        self.members: deque[Member] = deque()
        self.size = 0.0  # of the documents that wait

    @property
    def since(self) -> float:
        return self.members[0].arrived

    @property
    def is_full(self) -> bool:
        return self.size >= self.options.preferred_batch_size

    def due_at(self, hurry: bool) -> float:
        return self.since if hurry or self.options.greedy or self.is_full else self.since + self.options.timeout_s

    def cut(self) -> list[Piece]:
        """The documents of the next batch: at most the preferred size, all with `flush_all`; one that is larger by itself goes alone."""
        room = float("inf") if self.options.flush_all else float(self.options.preferred_batch_size)
        pieces: list[Piece] = []
        while self.members and room > 0:
            member = self.members[0]
            piece = None if member.closed else member.give(room, first=not any(piece.count for piece in pieces))
            if piece is not None:
                pieces.append(piece)
                room -= piece.size
                self.size -= piece.size
            if member.closed or member.given == len(member.sizes):
                self._drop()
            elif piece is None:
                break
        return pieces

    def _drop(self) -> None:
        """The oldest is through, or failed with a part of it: nobody wants the rest."""
        member = self.members.popleft()
        self.size -= sum(member.sizes[member.given :])
