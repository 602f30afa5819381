"""Takes snapshots of a stateful executor, one replica at a time, cuts the log behind them, and restores the newest one, or an older one
for all replicas.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from streamflow.broker import bucket, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.errors import InvalidInput, StreamflowError

from .outgoing import Identity
from .snapshots import Manifest, Snapshots, pack_folder, unpack_folder
from .state import State
from .write_log import Entry, WriteLog

log = logging.getLogger(__name__)

LEASE_S = 120
LOOK_S = 0.25
PAUSE_S = 30.0  # after a snapshot that failed


class Keeper:
    """`run` takes snapshots until it is cancelled: after `every` writes, or `every_s` seconds with any."""

    def __init__(self, bus: Bus, identity: Identity, state: State, log_: WriteLog, *, every: int, every_s: float) -> None:
        self._bus = bus
        self._me = identity
        self._state = state
        self._log = log_
        self._every = every
        self._every_s = every_s
        shard = identity.shard or 0
        self._snapshots = Snapshots(bus, identity.flow, identity.executor, shard)
        self._lease = f"snapshot.{identity.executor}.{shard}"
        self._newest = Manifest(0, time.time())

    async def restore(self) -> None:
        """Become the newest snapshot that is ahead of this replica, if there is one. A damaged one is passed over for the one before.

        Raises `StreamflowError` when the executor cannot restore.
        """
        for manifest in await self._snapshots.manifests():
            if manifest.sequence <= self._state.position:
                return
            try:
                await self._restore(manifest)
            except InvalidInput as error:
                log.error("%s: %s", self._me.replica, error)
                continue
            self._newest = manifest
            return

    async def _restore(self, manifest: Manifest) -> None:
        if not self._state.can_be_saved:
            raise StreamflowError(f"executor {self._me.executor!r} has a stored snapshot, but no `restore` to read it by")
        with tempfile.TemporaryDirectory(prefix="streamflow-") as name:
            file, folder = Path(name, "snapshot.tar"), Path(name, "snapshot")
            await self._snapshots.fetch(manifest, file)
            await asyncio.to_thread(unpack_folder, file, folder)
            file.unlink()
            await self._state.load(folder, manifest.sequence)

    async def run(self) -> None:
        if not self._state.can_be_saved:
            log.info("%s: no `snapshot` and `restore`: the log of its writes only grows", self._me.replica)
            return
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if self._is_due():
                    await self.in_turn(self._take_if_due)
            except StreamflowError as error:
                log.error("%s: no snapshot: %s", self._me.replica, error)
                await asyncio.sleep(PAUSE_S)

    def _is_due(self) -> bool:
        new = self._state.position - self._newest.sequence
        return new >= self._every or (new > 0 and time.time() - self._newest.time >= self._every_s)

    async def in_turn(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Whether `work` was done: not while another replica has the turn."""
        flow = self._me.flow
        if not await bucket.create(self._bus, flow, self._lease, self._me.instance, keep_s=LEASE_S):
            return False
        try:
            await work()
        finally:
            await self._bus.erase(subjects.bucket_key(flow, self._lease))
        return True

    async def _take_if_due(self) -> None:
        found = await self._snapshots.manifests()
        self._newest = found[0] if found else self._newest
        if self._is_due():
            await self.take()

    async def take(self, name: str = "") -> None:
        """In turn: store a snapshot (`name`: of the order that asked for it), then remove older ones and the writes that they make
        superfluous. Raises `StreamflowError`."""
        if not self._state.can_be_saved:
            raise StreamflowError(f"executor {self._me.executor!r} has no `snapshot` and `restore`")
        started = time.time()
        with tempfile.TemporaryDirectory(prefix="streamflow-") as scratch:
            file, folder = Path(scratch, "snapshot.tar"), Path(scratch, "snapshot")
            folder.mkdir()
            sequence = await self._state.save(folder)
            await asyncio.to_thread(pack_folder, folder, file)
            self._newest = await self._snapshots.store(file, sequence, started, name)
        superfluous = await self._snapshots.keep_newest()
        if superfluous:
            await self._log.trim(superfluous)
        log.info("%s: snapshot at %d, %d bytes, in %.1f s", self._me.replica, sequence, self._newest.size, time.time() - started)

    async def go_back(self, name: str, snapshot: str) -> int:
        """In turn: have all replicas go back to what order `snapshot` stored; the place in the log from which on they have.

        Raises `NotFound`, `InvalidInput` (damaged): then nothing has happened.
        """
        manifest = await self._snapshots.named(snapshot)
        with tempfile.TemporaryDirectory(prefix="streamflow-") as folder:
            await self._snapshots.fetch(manifest, Path(folder, "snapshot.tar"))
        sequence = await self._log.append_restore(name, manifest.encode())
        # The state at that place: its pieces are kept as long as the log may hold the entry, and a new replica begins with it.
        await self._snapshots.add(replace(manifest, sequence=sequence, time=time.time(), name=""))
        return sequence

    async def become(self, entry: Entry) -> None:
        """What `go_back` put into the log. Raises `StreamflowError`: this replica would not be as the others are."""
        manifest = replace(Manifest.decode(entry.message), sequence=entry.sequence)
        await self._restore(manifest)
        log.info("%s: back at the snapshot of place %d", self._me.replica, Manifest.decode(entry.message).sequence)
