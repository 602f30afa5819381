"""Takes snapshots of a stateful executor, one replica at a time, cuts the log behind them, and restores the newest one."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from pathlib import Path

from streamflow.broker import bucket, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.errors import InvalidInput, StreamflowError

from .outgoing import Identity
from .snapshots import Manifest, Snapshots, pack_folder, unpack_folder
from .state import State
from .write_log import WriteLog

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
            await self._state.load(folder)

    async def run(self) -> None:
        if not self._state.can_be_saved:
            log.info("%s: no `snapshot` and `restore`: the log of its writes only grows", self._me.replica)
            return
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if self._is_due():
                    await self._take_turn()
            except StreamflowError as error:
                log.error("%s: no snapshot: %s", self._me.replica, error)
                await asyncio.sleep(PAUSE_S)

    def _is_due(self) -> bool:
        new = self._state.position - self._newest.sequence
        return new >= self._every or (new > 0 and time.time() - self._newest.time >= self._every_s)

    async def _take_turn(self) -> None:
        """Take a snapshot unless another replica is about to, or has just done so."""
        flow = self._me.flow
        if not await bucket.create(self._bus, flow, self._lease, self._me.instance, keep_s=LEASE_S):
            return
        try:
            found = await self._snapshots.manifests()
            self._newest = found[0] if found else self._newest
            if self._is_due():
                self._newest = await self.take()
        finally:
            await self._bus.erase(subjects.bucket_key(flow, self._lease))

    async def take(self) -> Manifest:
        """Store a snapshot, then remove older ones and the writes that they make superfluous. Raises `StreamflowError`."""
        started = time.time()
        with tempfile.TemporaryDirectory(prefix="streamflow-") as name:
            file, folder = Path(name, "snapshot.tar"), Path(name, "snapshot")
            folder.mkdir()
            sequence = await self._state.save(folder)
            await asyncio.to_thread(pack_folder, folder, file)
            manifest = await self._snapshots.store(file, sequence, started)
        superfluous = await self._snapshots.keep_newest()
        if superfluous:
            await self._log.trim(superfluous)
        log.info("%s: snapshot at %d, %d bytes, in %.1f s", self._me.replica, sequence, manifest.size, time.time() - started)
        return manifest
