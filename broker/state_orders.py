"""Orders to a stateful executor: take a snapshot now, or go back to one. Given on the flow's control subject to all replicas at once.

How far each shard is stands in the flow's bucket for a day, so that any gateway can tell, also after whoever gave or carried out the order
has died.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from enum import StrEnum

import msgpack

from . import bucket, subjects
from .bus import Bus
from .errors import InvalidInput, Unavailable

KEPT_S = 86400.0
HEARD_S = 2.0  # within which a replica of each shard notes that it has the order
_POLL_S = 0.02


class Kind(StrEnum):
    SNAPSHOT = "snapshot"
    RESTORE = "restore"


class State(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Progress:
    """`detail`: why it failed."""

    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StateOrder:
    """One order to all shards of an executor. `name` tells it from others; `snapshot`: the name of the one that took what to go back to."""

    kind: Kind
    executor: str
    name: str
    snapshot: str = ""

    def encode(self) -> bytes:
        return bytes(msgpack.packb(asdict(self)))

    @classmethod
    def decode(cls, data: bytes) -> StateOrder:
        """What `encode` gave. Raises `InvalidInput` for anything else."""
        try:
            raw = msgpack.unpackb(data, raw=False)
            for field in ("executor", "name"):
                subjects.token(raw[field], field)
            return cls(**(raw | {"kind": Kind(raw["kind"])}))
        except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            raise InvalidInput(f"not an order: {error}") from error

    def key(self, shard: int) -> str:
        """Where in the bucket its progress stands. A worker may write there by `rights.own_records`."""
        return f"snapshot.{self.executor}.{self.kind}-{self.name}-{shard}"


async def give(bus: Bus, flow: str, order: StateOrder, shards: int) -> None:
    """Return when a replica of every shard has the order. Raises `Unavailable` when one has none that answers."""
    bus.publish(subjects.control(flow, "state"), order.encode())
    limit = time.monotonic() + HEARD_S
    silent = set(range(shards))
    while silent:
        silent -= {shard for shard in silent if await bucket.get(bus, flow, order.key(shard)) is not None}
        if silent and time.monotonic() > limit:
            raise Unavailable(f"executor {order.executor!r}: no ready replica of shard {min(silent)} has taken the {order.kind}")
        await asyncio.sleep(_POLL_S if silent else 0.0)


async def note(bus: Bus, flow: str, order: StateOrder, shard: int, progress: Progress) -> None:
    await bucket.put(bus, flow, order.key(shard), _wire(order, progress), keep_s=KEPT_S)


async def note_first(bus: Bus, flow: str, order: StateOrder, shard: int) -> None:
    """Note that the order runs, unless somebody has noted anything about it."""
    await bucket.create(bus, flow, order.key(shard), _wire(order, Progress(State.RUNNING)), keep_s=KEPT_S)


async def unfinished(bus: Bus, flow: str, executor: str, shard: int) -> list[StateOrder]:
    """Orders to a shard that run, as far as is known: those who heard them may have died since."""
    found = []
    for name in await bucket.keys(bus, flow, f"snapshot.{executor}"):
        kind, _, rest = name.partition("-")
        order_name, _, of_shard = rest.rpartition("-")
        if kind in set(Kind) and of_shard == str(shard):
            noted = await bucket.get(bus, flow, f"snapshot.{executor}.{name}")
            if noted is not None and noted[0] == State.RUNNING:
                found.append(StateOrder(Kind(kind), executor, order_name, noted[2]))
    return found


async def progress_of(bus: Bus, flow: str, order: StateOrder, shard: int) -> Progress | None:
    """How far one shard is; None when nothing is known of the order (any more)."""
    found = await bucket.get(bus, flow, order.key(shard))
    return None if found is None else Progress(State(found[0]), found[1])


async def progress(bus: Bus, flow: str, order: StateOrder, shards: int) -> Progress | None:
    """How far all shards together are: failed when one is, succeeded when all have; None when nothing is known of the order."""
    found = [await progress_of(bus, flow, order, shard) for shard in range(shards)]
    known = [each for each in found if each is not None]
    if len(known) < shards:
        return None
    failed = next((each for each in known if each.state is State.FAILED), None)
    done = all(each.state is State.SUCCEEDED for each in known)
    return failed or Progress(State.SUCCEEDED if done else State.RUNNING)


def _wire(order: StateOrder, progress: Progress) -> list[str]:
    return [progress.state.value, progress.detail, order.snapshot]
