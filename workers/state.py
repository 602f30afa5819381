"""The state of a stateful executor on one replica: the executor itself and the ledger of what it has applied, changed by one at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

from streamflow.broker.envelope import COLUMNS, Envelope, decode
from streamflow.broker.errors import InvalidInput, NotFound, StreamflowError

from .endpoints import EndpointSpec
from .executions import Execution, Failure, Outcome
from .executor import Executor
from .flows import Flows
from .invoke import Invoker
from .ledger import Ledger
from .outgoing import Outgoing
from .write_log import Entry

log = logging.getLogger(__name__)

LEDGER = "writes"
EXECUTOR = "executor"


@dataclass(slots=True)
class Task(Execution):
    """An execution that no delivery brought: a write out of the log, at place `sequence`, or a snapshot. On every replica the same."""

    delivery: Any = field(init=False, repr=False)
    sequence: int = 0
    ended_as: asyncio.Future[Outcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, outcome: Outcome) -> None:
        if not self.ended_as.done():  # cancelled: the worker stops
            self.ended_as.set_result(outcome)

    @property
    def attempt(self) -> int:
        return 1

    @property
    def subject(self) -> str:
        return f"the log, at {self.sequence}"

    @property
    def fencing_token(self) -> int:
        return self.sequence


Perform = Callable[[Task], Awaitable[Outcome]]


class State:
    """`perform` runs a task in the executor's thread, or on the loop where its method is async."""

    def __init__(self, invoker: Invoker, flows: Flows, outgoing: Outgoing, perform: Perform) -> None:
        self._invoker = invoker
        self._flows = flows
        self._outgoing = outgoing
        self._perform = perform
        self._turn = asyncio.Lock()
        self.ledger = Ledger()

    @property
    def position(self) -> int:
        """Place in the log up to which all writes are applied."""
        return self.ledger.position

    @property
    def can_be_saved(self) -> bool:
        return all(callable(getattr(self._invoker.executor, name, None)) for name in ("snapshot", "restore"))

    async def apply(self, entry: Entry) -> Task | None:
        """Apply the next write of the log; what was run, None for one that was applied before."""
        async with self._turn:
            task = None if entry.name in self.ledger else await self._task(entry)
            if task is not None:
                log.debug("applies write %s, at %d in the log", entry.name, entry.sequence)
                self.ledger.applied(entry.name, await self._perform(task), task.envelope)
            self.ledger.position = entry.sequence
            return task

    async def _task(self, entry: Entry) -> Task | None:
        try:
            envelope = decode(entry.message)
        except InvalidInput as error:
            log.error("write %s, at %d in the log, is passed over: %s", entry.name, entry.sequence, error)
            return None
        try:
            await self._flows.learn(envelope.flow_version, envelope.flow)
            accept = self._outgoing.form(envelope)
        except (NotFound, InvalidInput):  # the definition that it came by is gone, and so is who waited for it
            accept = COLUMNS
        spec = self._invoker.resolve(envelope.endpoint)
        return Task(envelope, spec and replace(spec, batching=None), accept, sequence=entry.sequence)

    async def save(self, folder: Path) -> int:
        """Put executor and ledger into `folder`; the place in the log that they stand for. Raises `StreamflowError` (`snapshot` failed)."""
        async with self._turn:
            path = folder / EXECUTOR
            outcome = await self._call("snapshot", path)
            if isinstance(outcome, Failure) and outcome.status.exception == "FileNotFoundError" and not path.exists():
                path.mkdir()  # it was written for a folder that is there
                outcome = await self._call("snapshot", path)
            self._check(outcome, "snapshot")
            (folder / LEDGER).write_bytes(self.ledger.encode())
            return self.position

    async def load(self, folder: Path, position: int) -> None:
        """Become what `save` put into `folder`, as the state at place `position` of the log.

        Raises `InvalidInput` (it did not), `StreamflowError` (the executor's `restore` failed).
        """
        try:
            ledger = Ledger.decode((folder / LEDGER).read_bytes())
        except OSError as error:
            raise InvalidInput(f"a snapshot without its ledger: {error}") from error
        async with self._turn:
            self._check(await self._call("restore", folder / EXECUTOR), "restore")
            self.ledger = ledger
            ledger.position = position

    async def _call(self, method: str, path: Path) -> Outcome:
        """Run `executor.<method>(path)` where its endpoints run."""
        executor = self._invoker.executor
        return await self._perform(Task(Envelope(method), _spec(executor, method, path), COLUMNS))

    def _check(self, outcome: Outcome, method: str) -> None:
        if isinstance(outcome, Failure):
            raise StreamflowError(f"{self._invoker.name}.{method}() failed: {outcome.status.description}")


def _spec(executor: Executor, method: str, path: Path) -> EndpointSpec:
    """`snapshot` or `restore` as an endpoint that takes no documents, so that it runs as one."""
    function = getattr(executor, method)
    is_async = iscoroutinefunction(function)
    if is_async:

        async def call() -> None:
            await function(str(path))
    else:

        def call() -> None:  # type: ignore[misc]
            function(str(path))

    return EndpointSpec(f"/{method}", type(executor).__name__, method, call, is_async=is_async, documents="")
