"""Temporary folders of own brokers. Each is locked while it is used, so that what a kill -9 left behind is found and removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "streamflow-broker-"
_LOCK = "in-use"


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
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
