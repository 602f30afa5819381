"""Snapshots of a stateful executor, stored in pieces in a stream of its shard. What is listed is whole: its manifest is written last.

The newest two are kept, and the log behind the older of them, so that a damaged one loses nothing; so are the newest two that somebody
asked for. A state that was gone back to is a snapshot too: at its place in the log, with the pieces of the older one.
"""

from __future__ import annotations

import asyncio
import os
import tarfile
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from hashlib import file_digest
from pathlib import Path

import msgpack

from streamflow.broker import subjects
from streamflow.broker.blobs import PIECE_BYTES
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import pack
from streamflow.broker.errors import InvalidInput, NotFound, Unavailable
from streamflow.broker.reader import read

KEPT = 2
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Manifest:
    """One stored snapshot. `sequence`: place in the log whose state it is; `time`: when it was taken, Unix seconds; `key`: of its pieces;
    `name`: of the order that asked for it; `place`: where it is listed."""

    sequence: int
    time: float
    key: str = ""
    size: int = 0
    sha256: str = ""
    name: str = ""
    place: str = ""

    @property
    def pieces(self) -> int:
        return -(-self.size // PIECE_BYTES)

    def encode(self) -> bytes:
        return pack({field: value for field, value in asdict(self).items() if value != ""}, "a manifest")

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        return cls(**msgpack.unpackb(data))


class Snapshots:
    """The snapshots of one shard."""

    def __init__(self, bus: Bus, flow: str, executor: str, shard: int) -> None:
        self._bus = bus
        self._place = flow, executor, shard
        self._stream = subjects.snapshot_stream(flow, executor, shard)

    async def manifests(self) -> list[Manifest]:
        """All that are there, newest first. Raises `NotFound` (not provisioned), `Unavailable`."""
        async with aclosing(read(self._bus, self._stream, self._subject("manifest", "*"))) as messages:
            found = [replace(Manifest.decode(message.payload), place=message.subject.rpartition(".")[2]) async for message in messages]
        return sorted(found, key=lambda manifest: manifest.sequence, reverse=True)

    async def store(self, file: Path, sequence: int, time: float, name: str = "") -> Manifest:
        """Store `file` as the snapshot of all writes up to place `sequence`. Raises `Unavailable` and others; then it is not listed."""
        manifest = Manifest(sequence, time, os.urandom(8).hex(), file.stat().st_size, await asyncio.to_thread(_digest, file), name)
        with file.open("rb") as source:
            for start in range(0, manifest.pieces, AT_ONCE):
                numbers = range(start, min(start + AT_ONCE, manifest.pieces))
                await asyncio.gather(*(self._store_piece(manifest, number, source.read(PIECE_BYTES)) for number in numbers))
        if await self._count(manifest) != manifest.pieces:
            raise Unavailable(f"the snapshot at {sequence} was removed while it was stored")
        await self.add(manifest)
        return manifest

    async def add(self, manifest: Manifest) -> None:
        """Make a snapshot known whose pieces are there."""
        place = f"{manifest.key}-{manifest.sequence}"
        await self._bus.store_wait(self._subject("manifest", place), manifest.encode(), place)

    async def named(self, name: str) -> Manifest:
        """The one that order `name` asked for. Raises `NotFound`."""
        found = [manifest for manifest in await self.manifests() if manifest.name == name]
        if not found:
            raise NotFound(f"there is no snapshot {name!r} in {self._stream} (any more): the newest {KEPT} that were asked for are kept")
        return found[0]

    async def fetch(self, manifest: Manifest, file: Path) -> None:
        """Write a snapshot to `file`. Raises `InvalidInput` when it is not what was stored (damaged, or removed meanwhile)."""
        stem = self._subject("piece", f"{manifest.key}.")
        with file.open("wb") as target:
            async with aclosing(read(self._bus, self._stream, stem + "*")) as messages:
                async for message in messages:
                    target.seek(int(message.subject.removeprefix(stem)) * PIECE_BYTES)
                    target.write(message.payload)
        if await asyncio.to_thread(_digest, file) != manifest.sha256:
            raise InvalidInput(f"the snapshot at {manifest.sequence} in {self._stream} is damaged: its SHA-256 does not match")

    async def keep_newest(self) -> int:
        """Remove those that need not be kept and what unfinished ones left behind: the place up to which the log is not needed any more."""
        found = await self.manifests()
        kept = [*found[:KEPT], *[manifest for manifest in found if manifest.name][:KEPT]]
        for manifest in found:
            if manifest not in kept:
                await self._purge(self._subject("manifest", manifest.place))
        for key in await self._keys() - {manifest.key for manifest in kept}:
            await self._purge(self._subject("piece", f"{key}.*"))
        return found[KEPT - 1].sequence if len(found) >= KEPT else 0

    async def _store_piece(self, manifest: Manifest, number: int, payload: bytes) -> None:
        name = f"{manifest.key}.{number}"
        await self._bus.store_wait(self._subject("piece", name), payload, name)

    async def _keys(self) -> set[str]:
        return {subject.split(".")[-2] for subject in await self._subjects(self._subject("piece", "*.0"))}

    async def _count(self, manifest: Manifest) -> int:
        return len(await self._subjects(self._subject("piece", f"{manifest.key}.*")))

    async def _subjects(self, pattern: str) -> list[str]:
        info = await self._bus.api(f"STREAM.INFO.{self._stream}", {"subjects_filter": pattern})
        return list(info["state"].get("subjects") or ())

    async def _purge(self, subject: str) -> None:
        await self._bus.api(f"STREAM.PURGE.{self._stream}", {"filter": subject})

    def _subject(self, kind: str, name: str) -> str:
        return subjects.snapshot(*self._place, kind, name)


def pack_folder(folder: Path, file: Path) -> None:
    """All that lies in `folder` as one tar file."""
    with tarfile.open(file, "w") as archive:
        for item in sorted(folder.iterdir()):
            archive.add(item, item.name)


def unpack_folder(file: Path, folder: Path) -> None:
    """The other way. Raises `InvalidInput` for what is no such file, or would write elsewhere."""
    try:
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise InvalidInput(f"a snapshot that cannot be unpacked: {error}") from error


def _digest(file: Path) -> str:
    with file.open("rb") as source:
        return file_digest(source, "sha256").hexdigest()
