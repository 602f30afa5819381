"""Data folders of own brokers, locked while they are used: so no two write to one, and what a kill -9 left in /tmp is found and removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from .errors import RuntimeFailToStart

PREFIX = "streamflow-broker-"
LEAVING_S = 3.0  # a server whose supervisor was killed needs a moment to end
_LOCK = "in-use"
_OWN_LOCK = "broker.lock"  # not `_LOCK`: a folder of the user's is never taken for one that was left behind


def lock_folder(folder: Path) -> int:
    """Descriptor whose holders have `folder` for themselves: pass it on to the server. Two servers would destroy each other's data.

    Raises `RuntimeFailToStart` when another one has it and does not end within `LEAVING_S`.
    """
    lock = os.open(folder / _OWN_LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    limit = time.monotonic() + LEAVING_S
    while not _is_free(lock):
        if time.monotonic() > limit:
            os.close(lock)
            raise RuntimeFailToStart(f"another broker runs on the data in {folder}: use it (--broker URL), end it, or take another folder")
        time.sleep(0.05)
    return lock


def temporary_folder() -> tuple[Path, int]:
    """A new folder, and the descriptor whose holders keep it: pass it on to the server."""
    _reap()
    new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    lock = os.open(new / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Under its own name only now, when nobody can take it for one that was left behind.
    return new.rename(new.with_name(new.name.removeprefix("."))), lock


def _reap() -> None:
    """Remove this user's folders that no process holds any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.getuid() and _is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    try:
        return _is_free(lock)
    finally:
        os.close(lock)


def _is_free(lock: int) -> bool:
    """Take `lock` unless somebody else has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
