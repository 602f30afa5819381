"""Exceptions of user code, as answers: which executor, which exception, and a traceback that starts in the user's own code."""

from __future__ import annotations

import traceback
from collections.abc import Set
from pathlib import Path
from types import TracebackType

from streamflow.broker.errors import Code, ExecutorError, Status

MAX_TEXT = 4_000  # characters of a description; all three bounds keep a status inside a message header (envelope.MAX_HEADER_BYTES)
MAX_ARGUMENTS = 8
MAX_STACKS = 24_000  # characters of a traceback
_OURS = str(Path(__file__).parent)


class EndpointError(ExecutorError):
    """User code raised, or returned what an endpoint may not; the user's exception is `__cause__`.

    `exits`: its class, or a base of it, is one of the executor's `exit_on_exceptions`. Answer first, then end the process.
    `may_retry`: the same for `retry_on`.
    """

    def __init__(self, status: Status, *, exits: bool = False, may_retry: bool = False) -> None:
        super().__init__(status)
        self.exits = exits
        self.may_retry = may_retry


def failed(error: BaseException, executor: str, exit_on: Set[str] = frozenset(), retry_on: Set[str] = frozenset()) -> EndpointError:
    """The error to raise for `error`, which came out of class `executor`. `exit_on`, `retry_on`: names of exceptions, bare or dotted.

    An `EndpointError` stays what it is: an executor that speaks for others (`streamflow.bridge`) has said what happened there.
    """
    if isinstance(error, EndpointError):
        return error
    error.with_traceback(_from_user_code(error.__traceback__))
    names = {name for kind in type(error).__mro__ for name in (kind.__name__, f"{kind.__module__}.{kind.__qualname__}")}
    status = _bounded(_status(error, executor))
    return EndpointError(status, exits=not names.isdisjoint(exit_on), may_retry=not names.isdisjoint(retry_on))


def misused(text: str, executor: str) -> EndpointError:
    """The error for an endpoint that broke a rule: shown as the `TypeError` that it is."""
    error = TypeError(text)
    return EndpointError(Status(Code.EXECUTOR_ERROR, repr(error), "TypeError", (text,), (), executor))


def _from_user_code(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_OURS):
        tb = tb.tb_next
    return tb


def _status(error: BaseException, executor: str) -> Status:
    try:
        return Status.of_executor(error, executor)
    except Exception:  # __repr__ or __str__ of the user's exception, or of its arguments, raised
        name = type(error).__name__
        return Status(Code.EXECUTOR_ERROR, f"{name}(...)", name, (), tuple(traceback.format_tb(error.__traceback__)), executor)


def _bounded(status: Status) -> Status:
    arguments = tuple(_clip(text, MAX_TEXT // MAX_ARGUMENTS) for text in status.args[:MAX_ARGUMENTS])
    name = _clip(status.exception, 200)
    return Status(status.code, _clip(status.description, MAX_TEXT), name, arguments, _last(status.stacks), status.executor)


def _clip(text: str, limit: int) -> str:
    """At most `limit` characters that UTF-8 can carry (messages with file names may hold lone surrogates)."""
    text = text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode()


def _last(lines: tuple[str, ...]) -> tuple[str, ...]:
    """The end of a traceback tells most: what does not fit is left out at its beginning."""
    kept: list[str] = []
    room = MAX_STACKS
    for line in reversed(lines):
        room -= min(len(line), MAX_TEXT)
        if room < 0:
            break
        kept.append(_clip(line, MAX_TEXT))
    left_out = len(lines) - len(kept)
    return (*([f"... {left_out} entries left out\n"] if left_out else []), *reversed(kept))
