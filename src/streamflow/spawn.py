"""One child process: forked from the supervisor (imports and memory are shared), or a fresh interpreter where forking is not safe.

Either way the child runs `module:function` of its `Child` in a process group of its own, so that Ctrl-C in a terminal reaches only the
supervisor and the drain keeps its order; it dies with the supervisor (Linux), and it never returns into the supervisor's stack.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NoReturn, cast

from . import logs
from .report import PipeReport, report_failure

EXIT_FAILED = 1
_PR_SET_PDEATHSIG = 1
# Read when a library is loaded, which in a forked child has happened already.
_READ_AT_LOAD = ("OMP_", "OPENBLAS_", "MKL_", "BLIS_", "NUMEXPR_", "LD_", "MALLOC_", "GLIBC_", "PYTHON")
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}


@dataclass(frozen=True, slots=True)
class Child:
    """What to run. `target` is called as `function(settings, report=report, **options)` and returns an exit code.

    `sealed` holds options that only the child may open (`pickling.dumps` of a dict): they may import the user's code.
    """

    name: str  # encoder/rep-0, gateway: for people, logs and errors
    target: str  # module:function
    settings: object
    options: Mapping[str, Any] = field(default_factory=dict)
    sealed: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    logging: Mapping[str, Any] = field(default_factory=dict)  # `logs.OPTIONS` of its own, over those of the supervisor
    inherit: tuple[int, ...] = ()  # descriptors of the supervisor that it shares, under the same numbers


@dataclass(slots=True)
class Process:
    """A started child: its pid and the non-blocking read end of its report pipe."""

    pid: int
    pipe: int
    popen: subprocess.Popen[bytes] | None = None

    def reaped(self, code: int) -> None:
        """Tell `subprocess` that the supervisor has waited for it already."""
        os.close(self.pipe)
        if self.popen is not None:
            self.popen.returncode = code


def launcher() -> Callable[[Child], Process]:
    """`fork` or `spawn`, by `STREAMFLOW_START`; macOS spawns by default, since its system libraries do not survive a fork."""
    start = os.environ.get("STREAMFLOW_START", "spawn" if sys.platform == "darwin" else "fork")
    return spawn if start == "spawn" else fork


def fork(child: Child) -> Process:
    """Fork and run `child`.

    Falls back to `spawn` when a thread runs here, since a forked copy could hold its locks for ever, and for environment variables that
    libraries read while they are loaded.
    """
    if threading.active_count() > 1 or any(key.startswith(_READ_AT_LOAD) for key in child.env):
        return spawn(child)
    read, write = os.pipe()
    parent = os.getpid()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # A signal between fork and `_become_child` would run the supervisor's handler in the child.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    pid = os.fork()
    if pid == 0:
        _in_fork(child, write, parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    os.close(write)
    os.set_blocking(read, False)
    return Process(pid, read)


def _in_fork(child: Child, pipe: int, parent: int) -> NoReturn:
    code = EXIT_FAILED
    try:
        _become_child({pipe, *child.inherit}, parent)
        code = run(child, pipe)
    finally:
        _leave(code)


def _become_child(kept: set[int], parent: int) -> None:
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Objects of the supervisor that own these descriptors stay referenced by its frames below ours, so none is ever closed a second time.
    ends = [*sorted(kept), os.sysconf("SC_OPEN_MAX")]
    for before, end in zip([2, *ends], ends, strict=False):
        os.closerange(before + 1, end)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    die_with(parent)
    atexit._clear()
    gc.enable()
    random.seed()
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def die_with(parent: int) -> None:
    """Have the kernel send this process SIGTERM when the supervisor is gone, even by kill -9 (Linux: prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        _leave(EXIT_FAILED)


def run(child: Child, pipe: int) -> int:
    """Run the child's target in this process and return its exit code; whatever it raises is reported and ends it."""
    report = PipeReport(pipe)
    try:
        os.environ.update(child.env)
        logs.rename(child.name, child.logging)
        module, _, name = child.target.partition(":")
        function = getattr(import_module(module), name)
        return int(function(child.settings, report=report, **child.options, **_unseal(child.sealed)))
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else EXIT_FAILED * (error.code is not None)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        report_failure(report, error)
        return EXIT_FAILED


def _unseal(sealed: bytes) -> dict[str, Any]:
    if not sealed:
        return {}
    from .pickling import loads  # cloudpickle is needed only by children with classes from a script

    return cast(dict[str, Any], loads(sealed))


def _leave(code: int) -> NoReturn:
    """End a forked child: user code's own exit handlers run, the supervisor's stack does not."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    with contextlib.suppress(BaseException):
        logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(code)


def spawn(child: Child) -> Process:
    """Run `child` in a fresh interpreter; the definition travels by a private pipe."""
    read, write = os.pipe()
    give, take = os.pipe()
    command = [sys.executable, "-m", "streamflow.spawn", str(give), str(write), str(os.getpid())]
    popen = subprocess.Popen(
        command, pass_fds=(give, write, *child.inherit), process_group=0, stdin=subprocess.DEVNULL, env={**with_own_package(), **child.env}
    )
    os.close(give)
    os.close(write)
    with contextlib.suppress(BrokenPipeError), os.fdopen(take, "wb") as stream:
        stream.write(pickle.dumps((sys.path, os.environ.get("PYTHONPATH"), logs.current(), child)))
    os.set_blocking(read, False)
    return Process(popen.pid, read, popen)


def with_own_package() -> dict[str, str]:
    """The environment in which `-m streamflow...` finds this very package, installed or not; the child restores PYTHONPATH."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    rest = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{rest}" if rest else root}


def restore_path(path: list[str], python_path: str | None) -> None:
    """Make imports work here as they did in the process that started this one."""
    sys.path[:] = path
    os.environ.pop("PYTHONPATH", None)
    if python_path is not None:
        os.environ["PYTHONPATH"] = python_path


def main(arguments: list[str]) -> int:
    """`python -m streamflow.spawn <read fd> <report fd> <supervisor's pid>`."""
    give, pipe, parent = map(int, arguments)
    die_with(parent)
    os.set_inheritable(pipe, False)
    with os.fdopen(give, "rb") as stream:
        path, python_path, logging_setup, child = pickle.load(stream)
    restore_path(path, python_path)
    logs.setup(logging_setup)
    return run(child, pipe)


if __name__ == "__main__":
    from streamflow.spawn import main as imported  # the module's classes must not exist twice

    sys.exit(imported(sys.argv[1:]))
