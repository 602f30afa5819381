"""How many requests of jobs may be under way at an executor: enough that its workers never wait for the feeder, few enough that a job which
is submitted later has its turn soon."""

from __future__ import annotations

import asyncio

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.errors import StreamflowError
from streamflow.broker.flow import Graph
from streamflow.broker.routing import plan_for

SMALLEST = 8
SMALLEST_SHARED = 64  # where online requests wait in the same queue and are counted too
LARGEST = 20_000
GROWTH = 4


class Room:
    """One executor's. `see` what the broker says, then `take` a place for each request that is fed, while there `is_left` one."""

    def __init__(self, stream: str, durable: str, smallest: int = SMALLEST) -> None:
        self.stream = stream
        self.durable = durable
        self._smallest = self._places = smallest
        self._taken = 0
        self._was_wanted = False
        self.was_too_small = False  # its workers ran dry before the last look

    def see(self, queued: int, held: int, unstored: int) -> None:
        """`queued` requests wait in the broker, workers hold `held`, `unstored` are still on their way to the broker."""
        self._taken = queued + held + unstored
        self.was_too_small = not queued + unstored and self._was_wanted
        if self.was_too_small:
            self._places = min(GROWTH * self._places, LARGEST)
        elif queued > self._places // 2 and self._taken <= self._places:
            self._places = max(self._smallest, self._places * 9 // 10)
        self._was_wanted = False

    def is_left(self) -> bool:
        """Asked by who has a request to feed: places that nobody misses grow no more."""
        if self._taken < self._places:
            return True
        self._was_wanted = True
        return False

    def take(self) -> None:
        self._taken += 1


class Rooms:
    """Those of the executors that jobs run through."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._version = ""  # of the flow
        self._of: dict[str, tuple[Room, ...]] = {}  # by executor

    def through(self, graph: Graph, target_executor: str) -> tuple[Room, ...]:
        """Where a request takes a place: not only at the first executor, or it would wait in numbers before the slowest one."""
        if graph.version != self._version:
            self._version, self._of = graph.version, {}
        names = _executors(graph, target_executor)
        for name in names:
            if name not in self._of:
                self._of[name] = _rooms_at(graph, name)
        return tuple(room for name in names for room in self._of[name])

    async def look(self, unstored: int) -> bool:
        """Ask the broker; of what was fed, `unstored` is on its way there. Whether a room was too small.

        Raises `Unavailable`, `NotFound`.
        """
        rooms = [room for each in self._of.values() for room in each]
        infos = await asyncio.gather(*(self._bus.api(f"CONSUMER.INFO.{room.stream}.{room.durable}") for room in rooms))
        for room, info in zip(rooms, infos, strict=True):
            room.see(info["num_pending"], info["num_ack_pending"], unstored)
        return any(room.was_too_small for room in rooms)

    def clear(self) -> None:
        self._of.clear()


def _executors(graph: Graph, target_executor: str) -> list[str]:
    """Those that run for a request, but for external ones, whose queues are another flow's."""
    try:
        running = plan_for(graph, target_executor).running
    except StreamflowError:  # no regular expression, which is the outcome of each input
        return []
    return [node.name for node in graph.nodes if node.name in running and not node.external]


def _rooms_at(graph: Graph, name: str) -> tuple[Room, ...]:
    bulk = Room(subjects.work_stream(graph.flow, name), subjects.work_durable("bulk"))
    if graph.node(name).shards == 1:
        return (bulk,)
    return bulk, Room(subjects.fan_out_stream(graph.flow, name), subjects.shard_durable(0), SMALLEST_SHARED)
