"""What a supervisor is given to do, and how that reaches it: in the same process, or as a pickle on a private pipe."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, Self, cast

from . import logs
from .members import Place
from .reload import Sources
from .spawn import restore_path


class Broker(Protocol):
    """An embedded broker (`broker.server.EmbeddedBroker`): after `kill()` it may be launched again with the same URL and data."""

    @property
    def url(self) -> str: ...
    @property
    def pid(self) -> int: ...
    def launch(self) -> None: ...
    def wait_ready(self) -> None: ...
    def has_lost_its_disk(self) -> bool: ...
    def kill(self) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """The processes of one flow. `early` and `late` are modules imported before the gateway and before the workers are forked.

    `settle` runs in a drain once the gateway is gone, and the workers go on until it ends (floating executors, FL-22). `check` gets what
    each executor's workers said they offer when all are ready, and raises `FlowError` when the flow must not serve so. `release` lets go
    of the ports when the flow ends.

    For a change of the flow file `flow_file` (its `kind` is Flow or Deployment): `stage` brings what the new definition needs to the
    broker, before its workers start and the task among `places` makes it the current one; `emptied` waits until nothing is left for
    executors that are to go. `sources` are the files to watch.
    """

    places: tuple[Place, ...]
    settle: Place | None = None
    early: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    check: Callable[[Mapping[str, list[dict[str, Any]]]], None] | None = None
    grace_s: float = 35.0  # of each role's drain, before SIGKILL
    release: Callable[[], None] = lambda: None
    kind: str = "Flow"
    flow_file: str = ""
    stage: Place | None = None
    emptied: Callable[[frozenset[str]], Place] | None = None
    sources: tuple[Sources, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """An assignment ready to run. `make_plan` gets the broker's URL; `broker_url` is that of an external broker when `broker` is None.

    `remake_plan` reads the flow file again; it raises `StreamflowError` with file and line.
    """

    make_plan: Callable[[str], Plan]
    broker: Broker | None = None
    broker_url: str = ""
    remake_plan: Callable[[str], Plan] = lambda url: Plan(())


@dataclass(frozen=True, slots=True)
class Assignment:
    """A flow to run in another process: `factory` ("module:function") makes a `Prepared` of what `argument` unpickles to."""

    factory: str
    argument: bytes
    path: tuple[str, ...]
    python_path: str | None
    logging: logs.Setup

    @classmethod
    def here(cls, factory: str, argument: bytes, options: Mapping[str, Any] | None = None) -> Self:
        """One that imports as this process does and logs to its stderr, or as the flow's `options` say."""
        return cls(factory, argument, tuple(sys.path), os.environ.get("PYTHONPATH"), logs.choose(options=options))

    @classmethod
    def read(cls, pipe: int) -> Self:
        """The one that the owner wrote: 8 bytes of length, then a pickle. Raises `EOFError` when the owner died first."""
        size = int.from_bytes(_exactly(pipe, 8), "big")
        return cast(Self, pickle.loads(_exactly(pipe, size)))

    def to_bytes(self) -> bytes:
        data = pickle.dumps(self)
        return len(data).to_bytes(8, "big") + data

    def settle_in(self) -> None:
        """Make this process import and log as the owner does."""
        restore_path(list(self.path), self.python_path)
        logs.setup(self.logging)

    def prepare(self) -> Prepared:
        module, _, name = self.factory.partition(":")
        return cast(Prepared, getattr(import_module(module), name)(pickle.loads(self.argument)))


def _exactly(pipe: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = os.read(pipe, size - len(data))
        if not piece:
            raise EOFError("the owner of this flow ended before it had said what to run")
        data += piece
    return bytes(data)
