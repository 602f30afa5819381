"""Every error that streamflow raises or answers, and its code on the wire.

    StreamflowError                INTERNAL
    |- InvalidInput                INVALID_ARGUMENT     a request or document that can never succeed
    |  `- FlowError                INVALID_ARGUMENT     a flow, deployment or executor file, with file and line
    |- NotFound                    NOT_FOUND            an unknown endpoint, executor, flow, job or request
    |- AlreadyExists               ALREADY_EXISTS       another body under the same request id or job key, or a result recorded twice
    |- Unauthenticated             UNAUTHENTICATED
    |- PermissionDenied            PERMISSION_DENIED
    |- DeadlineExceeded            DEADLINE_EXCEEDED    nobody waits for the answer any more
    |- Cancelled                   CANCELLED            the client left or asked to stop
    |- Overloaded                  RESOURCE_EXHAUSTED   a bounded queue is full: try again later
    |- TooLarge                    TOO_LARGE            one request above the size limit
    |- Unavailable                 UNAVAILABLE          no broker, no stream or no worker
    |- Quarantined                 QUARANTINED          given up after repeated worker deaths, kept as a dead letter
    |- ExecutorError               EXECUTOR_ERROR       user code raised: an answer, not a failure of the queue
    `- RuntimeFailToStart          INTERNAL             an executor, gateway or broker that could not start

`Code` values are the gRPC status names (https://grpc.io/docs/guides/status-codes/) where one exists.
`Status` is what travels in an envelope; `Status.of` and `Status.raise_for` are the only two ways between it and these classes.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar


class Code(StrEnum):
    """Outcome of a request on the wire."""

    OK = "OK"
    EXECUTOR_ERROR = "EXECUTOR_ERROR"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    TOO_LARGE = "TOO_LARGE"
    UNAVAILABLE = "UNAVAILABLE"
    QUARANTINED = "QUARANTINED"
    INTERNAL = "INTERNAL"


class StreamflowError(Exception):
    """Base of all errors of this package; `code` is its name on the wire."""

    code: ClassVar[Code] = Code.INTERNAL

    @property
    def name(self) -> str:
        """Class name of the error; of an `ExecutorError`, that of the exception which the executor raised."""
        return type(self).__name__


class InvalidInput(StreamflowError):
    code = Code.INVALID_ARGUMENT


class FlowError(InvalidInput):
    """A flow, deployment or executor definition that cannot work.

    The text starts with `file:line: path.to.key:` where these are known.
    """


class NotFound(StreamflowError):
    code = Code.NOT_FOUND


class AlreadyExists(StreamflowError):
    code = Code.ALREADY_EXISTS


class Unauthenticated(StreamflowError):
    code = Code.UNAUTHENTICATED


class PermissionDenied(StreamflowError):
    code = Code.PERMISSION_DENIED


class DeadlineExceeded(StreamflowError):
    code = Code.DEADLINE_EXCEEDED


class Cancelled(StreamflowError):
    code = Code.CANCELLED


class Overloaded(StreamflowError):
    code = Code.RESOURCE_EXHAUSTED


class TooLarge(StreamflowError):
    code = Code.TOO_LARGE


class Unavailable(StreamflowError):
    code = Code.UNAVAILABLE


class Quarantined(StreamflowError):
    code = Code.QUARANTINED


class ExecutorError(StreamflowError):
    """User code raised. `status` holds the original exception's name, arguments and traceback lines."""

    code = Code.EXECUTOR_ERROR

    def __init__(self, status: Status) -> None:
        super().__init__(status.description)
        self.status = status

    @property
    def name(self) -> str:
        """Class name of the exception that the executor raised."""
        return self.status.exception


class RuntimeFailToStart(StreamflowError):
    """An executor, gateway or broker did not come up; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Status:
    """Outcome of a request: `code`, a sentence, and for user exceptions what Jina's `StatusProto.ExceptionProto` holds."""

    code: Code = Code.OK
    description: str = ""
    exception: str = ""
    args: tuple[str, ...] = ()
    stacks: tuple[str, ...] = ()
    executor: str = ""

    @classmethod
    def of(cls, error: BaseException, *, executor: str = "") -> Status:
        """The status to answer for `error`, without its traceback: only one that user code raised has that, see `of_executor`."""
        if isinstance(error, ExecutorError):
            return error.status
        code = error.code if isinstance(error, StreamflowError) else Code.INTERNAL
        description = str(error) if isinstance(error, StreamflowError) else repr(error)
        return cls(code, description, type(error).__name__, tuple(map(str, error.args)), executor=executor)

    @classmethod
    def of_executor(cls, error: BaseException, executor: str) -> Status:
        """The status of an exception that user code raised in executor class `executor`."""
        stacks = tuple(traceback.format_exception(error))
        return cls(Code.EXECUTOR_ERROR, repr(error), type(error).__name__, tuple(map(str, error.args)), stacks, executor)

    def raise_for(self) -> None:
        """Raise the error class that belongs to `code`; return when the status is OK."""
        if self.code is Code.OK:
            return
        if self.code is Code.EXECUTOR_ERROR:
            raise ExecutorError(self)
        raise _BY_CODE.get(self.code, StreamflowError)(self.description)

    def to_wire(self) -> list[Any]:
        return [self.code.value, self.description, self.exception, self.args, self.stacks, self.executor]

    @classmethod
    def from_wire(cls, raw: list[Any]) -> Status:
        code, description, exception, args, stacks, executor = raw[:6]
        return cls(Code(code), description, exception, tuple(args), tuple(stacks), executor)


OK = Status()

_BY_CODE: dict[Code, type[StreamflowError]] = {
    kind.code: kind
    for kind in (
        InvalidInput, NotFound, AlreadyExists, Unauthenticated, PermissionDenied, DeadlineExceeded, Cancelled,
        Overloaded, TooLarge, Unavailable, Quarantined, StreamflowError,
    )
}  # fmt: skip
