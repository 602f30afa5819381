"""A lease on a role that one process at a time should have, kept in the flow's bucket with a time to live.

It saves work, it does not exclude: a holder that was stopped for longer than the lease may overlap with the next one, so what holders do
must be harmless when done twice.
"""

from __future__ import annotations

from . import bucket
from .bus import Bus

KEEP_S = 4.0


class Lease:
    """`hold()` at least every `KEEP_S / 2` while the role is wanted."""

    def __init__(self, bus: Bus, flow: str, role: str, holder: str) -> None:
        self._bus = bus
        self._flow = flow
        self._key = f"lease.{role}"
        self._holder = holder

    async def hold(self) -> bool:
        """Take the role if it is free, or renew it; whether this process has it now. Raises `Unavailable`."""
        if await bucket.create(self._bus, self._flow, self._key, self._holder, keep_s=KEEP_S):
            return True
        if await bucket.get(self._bus, self._flow, self._key) not in (self._holder, None):  # None: just given up
            return False
        await bucket.put(self._bus, self._flow, self._key, self._holder, keep_s=KEEP_S)
        return True

    async def release(self) -> None:
        """Give the role up, if this process has it. Raises `Unavailable`."""
        if await bucket.get(self._bus, self._flow, self._key) == self._holder:
            await bucket.delete(self._bus, self._flow, self._key)
