"""What workers have in hand, written down where the process beside them (`companion.py`) can read it.

A call that holds the interpreter's lock stops every thread of its process, so nothing can be told once it has begun. Therefore each
delivery is written down when it is taken, which costs less than a microsecond, in a file without a name that both processes map: one
place for each worker, with a lock that the kernel lets go of when the worker ends, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

Message = tuple[str, bytes]

# Native sizes and order: each number is written at once, so that a reader never sees a part of one.
_TERMS = struct.Struct("@iddd")
_BEAT = struct.Struct("@d")  # monotonic seconds
_END = struct.Struct("@Q")  # behind the last slot that was ever used
_SIZES = struct.Struct("@IH")  # of two things that follow
_SLOT = struct.Struct("@ddH494s")  # when the broker last heard of it (monotonic), its deadline (Unix); bytes of its ack subject, 0 = free
_TIMES, _LENGTH = struct.Struct("@dd"), struct.Struct("@H")
_LENGTH_AT = _TIMES.size
_SUBJECT_AT = _LENGTH_AT + _LENGTH.size
# Where things are in a worker's place.
_TERMS_AT, _BEAT_AT, _END_AT, _WHO_AT, _MESSAGE_AT, _SLOTS_AT = 0, 128, 192, 256, 64 << 10, 2 << 20
_SLOTS = 65_536  # more than a worker has in hand; what is never used takes no memory
_PLACE_BYTES = _SLOTS_AT + _SLOTS * _SLOT.size
_PLACES = 1024
_HEAD_BYTES = 64 << 10  # the first `_PLACES` bytes: 1 = the place has been used


class Terms(NamedTuple):
    """How the leases of a worker are kept."""

    pid: int
    period_s: float  # after which the broker is to hear of a delivery again
    pause_s: float  # between two beats
    limit_s: float  # without a beat, after which a call has run for too long; infinite = there is none


class Leases:
    """What one worker has in hand. `hold` and `release` may be called from any of its threads; others read, and extend in its place."""

    def __init__(self, memory: mmap.mmap | None = None) -> None:
        """Without `memory` nobody else sees it."""
        self._memory = memory or mmap.mmap(-1, _PLACE_BYTES)
        self._slots: dict[str, int] = {}  # ack subject -> where it is written
        self._free: list[int] = []  # the one used last is used next: few pages of memory are ever touched
        self._end = _SLOTS_AT
        self._announced: Message | None = None

    # in the worker

    def open(self, executor: str, settings: Mapping[str, Any], terms: Terms) -> None:
        """From now on there are beats. `settings`: how to reach the broker, as this worker's user."""
        self._write(_WHO_AT, _MESSAGE_AT, executor.encode(), json.dumps(settings).encode())
        _TERMS.pack_into(self._memory, _TERMS_AT, *terms)

    def close(self) -> None:
        """There will be no more beats, and what is left is not to be kept."""
        _BEAT.pack_into(self._memory, _BEAT_AT, 0.0)

    def hold(self, ack_subject: str, deadline: float) -> None:
        slot = self._slots.get(ack_subject)
        if slot is None:
            if not self._free and self._end == len(self._memory):
                return
            slot = self._slots[ack_subject] = self._free.pop() if self._free else self._new_slot()
        name = ack_subject.encode()
        _SLOT.pack_into(self._memory, slot, time.monotonic(), deadline, len(name), name)

    def _new_slot(self) -> int:
        slot, self._end = self._end, self._end + _SLOT.size
        _END.pack_into(self._memory, _END_AT, self._end)
        return slot

    def release(self, ack_subject: str) -> None:
        slot = self._slots.pop(ack_subject, None)
        if slot is not None:
            _LENGTH.pack_into(self._memory, slot + _LENGTH_AT, 0)
            self._free.append(slot)

    def beat(self) -> None:
        """The worker's threads run."""
        _BEAT.pack_into(self._memory, _BEAT_AT, time.monotonic())

    def announce(self, message: Message) -> None:
        """What is to be said in the worker's place."""
        if message != self._announced:
            self._write(_MESSAGE_AT, _SLOTS_AT, message[0].encode(), message[1])
            self._announced = message

    def _write(self, start: int, end: int, first: bytes, second: bytes) -> None:
        """Nothing, where there is no room."""
        body = start + _SIZES.size
        if body + len(first) + len(second) <= end:
            self._memory[body : body + len(first) + len(second)] = first + second
            _SIZES.pack_into(self._memory, start, len(second), len(first))

    # in either

    def due(self, age_s: float) -> list[str]:
        """Ack subjects of what is within its deadline and was not heard of for `age_s`; the caller is about to tell of them."""
        now, wall, found = time.monotonic(), time.time(), []
        for slot in self._used():
            since, deadline = _TIMES.unpack_from(self._memory, slot)
            if now - since >= age_s and not 0 < deadline < wall and (subject := self._subject(slot)):
                _TIMES.pack_into(self._memory, slot, now, deadline)
                found.append(subject)
        return found

    def held(self) -> list[str]:
        """Ack subjects of all that is in hand."""
        return [subject for slot in self._used() if (subject := self._subject(slot))]

    def _used(self) -> range:
        return range(_SLOTS_AT, _END.unpack_from(self._memory, _END_AT)[0], _SLOT.size)

    def _subject(self, slot: int) -> str:
        """Empty where the slot is free."""
        start = slot + _SUBJECT_AT
        return self._memory[start : start + _LENGTH.unpack_from(self._memory, slot + _LENGTH_AT)[0]].decode()

    # beside the worker

    @property
    def terms(self) -> Terms | None:
        """None until the worker has begun."""
        terms = Terms(*_TERMS.unpack_from(self._memory, _TERMS_AT))
        return terms if terms.pid else None

    @property
    def silent_s(self) -> float:
        """Seconds since the last beat; 0.0 where there are none, before and after the worker's work."""
        (beat,) = _BEAT.unpack_from(self._memory, _BEAT_AT)
        return time.monotonic() - beat if beat else 0.0

    @property
    def who(self) -> tuple[str, dict[str, Any]]:
        """The executor, and the settings that `open` was given."""
        executor, settings = self._read(_WHO_AT)
        return executor, json.loads(settings)

    @property
    def announcement(self) -> Message | None:
        subject, payload = self._read(_MESSAGE_AT)
        return (subject, payload) if subject else None

    def _read(self, start: int) -> tuple[str, bytes]:
        second, first = _SIZES.unpack_from(self._memory, start)
        middle = start + _SIZES.size + first
        return self._memory[start + _SIZES.size : middle].decode(), self._memory[middle : middle + second]


class LeaseFile:
    """The places of the workers of one machine. The descriptor is handed on to each of them; nothing of it is on a disk (Linux)."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def new(cls) -> Self:
        if sys.platform == "linux":
            descriptor = os.memfd_create("streamflow-leases")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _HEAD_BYTES + _PLACES * _PLACE_BYTES)
        return cls(descriptor)

    def claim(self) -> Leases:
        """A place for this process until it ends. It must not close another descriptor of this file: that would end the lock (fcntl(2))."""
        place = next((place for place in range(_PLACES) if self.lock(place)), None)
        if place is None:
            return Leases()
        leases = self.leases(place)
        leases.close()
        _TERMS.pack_into(leases._memory, _TERMS_AT, 0, 0.0, 0.0, 0.0)
        _END.pack_into(leases._memory, _END_AT, _SLOTS_AT)
        os.pwrite(self.descriptor, b"\1", place)
        return leases

    def used(self) -> list[int]:
        """The places that somebody has, or had."""
        return [place for place, is_used in enumerate(os.pread(self.descriptor, _PLACES, 0).rstrip(b"\0")) if is_used]

    def leases(self, place: int) -> Leases:
        return Leases(mmap.mmap(self.descriptor, _PLACE_BYTES, offset=_HEAD_BYTES + place * _PLACE_BYTES))

    def lock(self, place: int) -> bool:
        """Whether nobody has this place; then it is locked for this process."""
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError:
            return False
        return True

    def unlock(self, place: int) -> None:
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, place)
