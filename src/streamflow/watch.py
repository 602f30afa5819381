"""What wakes the supervisor: signals, lines of its children, its owner's commands and death. One selector, no thread, no busy loop."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
from collections.abc import Iterator
from enum import Enum
from types import FrameType, TracebackType
from typing import Self

POLL_S = 1.0


class Wake(Enum):
    """Why `Watch.wait` returned, beside the descriptors of children."""

    CHILD = "a child may have ended"
    STOP = "asked to stop"
    INTERRUPT = "Ctrl-C"
    ORPHAN = "the owner is gone"
    RESTART = "SIGHUP: replace all processes, one after the other"


class Watch:
    """Context manager: takes over SIGCHLD, SIGTERM, SIGHUP and SIGINT while it is open. `owner` = read end of the owner's pipe.

    A line on that pipe, or its end, asks to stop. A process that the owner forked may hold the pipe open after the owner's death,
    so the parent process is watched too (pidfd on Linux, else by looking every second).
    """

    def __init__(self, owner: int | None = None) -> None:
        self._owner = owner
        self._parent = os.getppid()
        self._had_terminal = _has_terminal()
        self._pidfd = -1
        self._selector = selectors.DefaultSelector()
        self._signals, self._wakeup = socket.socketpair()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for end in (self._signals, self._wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                self._before[number] = signal.signal(number, _noted)
        self._selector.register(self._signals, selectors.EVENT_READ, "signals")
        if self._owner is not None:
            os.set_blocking(self._owner, False)
            self._selector.register(self._owner, selectors.EVENT_READ, "owner")
            self._watch_parent()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
        self._selector.close()
        self._signals.close()
        self._wakeup.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)

    def add(self, pipe: int) -> None:
        self._selector.register(pipe, selectors.EVENT_READ, "child")

    def remove(self, pipe: int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(pipe)

    def wait(self, timeout_s: float | None) -> Iterator[Wake | int]:
        """Yield what happened: a `Wake`, or the descriptor of a child that said something. Nothing after `timeout_s`."""
        if self._owner is not None and self._pidfd < 0:
            timeout_s = POLL_S if timeout_s is None else min(timeout_s, POLL_S)
            if os.getppid() != self._parent:
                yield Wake.ORPHAN
        for key, _ in self._selector.select(timeout_s):
            if key.data == "child":
                yield key.fd
            elif key.data == "signals":
                yield from self._wakes(self._signals.recv(4096))
            else:
                yield from self._told(key.fd)

    def _watch_parent(self) -> None:
        if not hasattr(os, "pidfd_open"):
            return
        with contextlib.suppress(OSError):
            self._pidfd = os.pidfd_open(self._parent)
            self._selector.register(self._pidfd, selectors.EVENT_READ, "parent")

    def has_stop(self) -> bool:
        """Whether a signal to stop has come that `wait` has not yielded yet."""
        with contextlib.suppress(BlockingIOError):
            return any(wake in (Wake.STOP, Wake.INTERRUPT) for wake in self._wakes(self._signals.recv(4096, socket.MSG_PEEK)))
        return False

    def _wakes(self, numbers: bytes) -> Iterator[Wake]:
        """What signals mean. Those to stop come first: a child may have died of the very same, which is then no failure."""
        yield from (Wake.INTERRUPT for number in numbers if number == signal.SIGINT)
        yield from (Wake.STOP for number in numbers if number == signal.SIGTERM)
        yield from (Wake.STOP if self._hung_up() else Wake.RESTART for number in numbers if number == signal.SIGHUP)
        if signal.SIGCHLD in numbers:
            yield Wake.CHILD

    def _hung_up(self) -> bool:
        """Whether SIGHUP means that the terminal is gone, in which this was started."""
        return self._had_terminal and not _has_terminal()

    def _told(self, descriptor: int) -> Iterator[Wake]:
        """The owner's pipe or the parent's pidfd became readable. After an end there is nothing more to hear on it."""
        if descriptor == self._owner:
            lines = os.read(descriptor, 4096)
            if lines:
                yield from (Wake.STOP for _ in lines.splitlines())
                return
        self._selector.unregister(descriptor)
        yield Wake.ORPHAN


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The wakeup descriptor carries the signal; Python only needs a handler to be there."""
