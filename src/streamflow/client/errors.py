"""What a client raises beyond the shared tree, and how an error answer becomes an exception.

    InvalidInput
    `- BadArguments          also ValueError: arguments of Client() or post() that contradict each other
    Unavailable
    `- ServerUnavailable     also ConnectionError: no connection, or nobody behind the gateway
    DeadlineExceeded
    `- RequestTimeout        also ConnectionError: no answer in time

The last two, and `Overloaded`, are transient: sending the same request again may succeed.
"""

from __future__ import annotations

from streamflow.broker.errors import (
    Cancelled,
    Code,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    Quarantined,
    Status,
    StreamflowError,
    TooLarge,
    Unauthenticated,
    Unavailable,
)


class BadArguments(InvalidInput, ValueError):
    """Arguments that contradict each other or cannot be read."""


class _Lost(ConnectionError):
    """A request that got no answer: `request_id`, and how often it was sent (0 = it never left)."""

    request_id = ""
    attempts = 0

    def __str__(self) -> str:
        place = [f"request {self.request_id}"] if self.request_id else []
        place += [f"{self.attempts} attempts"] if self.attempts > 1 else []
        return f"{super().__str__()} ({', '.join(place)})" if place else super().__str__()


class ServerUnavailable(_Lost, Unavailable):
    """The gateway cannot be reached, went away, or has no worker for the request."""


class RequestTimeout(_Lost, DeadlineExceeded):
    """No answer within the time allowed."""


TRANSIENT = (ServerUnavailable, RequestTimeout, Overloaded)
_CONNECTION: dict[Code, type[ServerUnavailable | RequestTimeout]] = {
    Code.UNAVAILABLE: ServerUnavailable,
    Code.DEADLINE_EXCEEDED: RequestTimeout,
}
_EXCERPT_LINES = 40
_NAMED: dict[str, Code] = {code.value: code for code in Code} | {
    kind.__name__: kind.code
    for kind in (
        InvalidInput, NotFound, Unauthenticated, PermissionDenied, DeadlineExceeded, Cancelled,
        Overloaded, TooLarge, Unavailable, Quarantined, StreamflowError,
    )
} | {"InternalNetworkError": Code.UNAVAILABLE}  # fmt: skip


def error_of(status: Status, request_id: str, place: str = "") -> StreamflowError:
    """The exception for an answer whose status is not OK; `place` is the replica and attempt, where the server tells.

    Its text names executor, place and request id; the traceback lines of the executor are attached as a note.
    """
    if status.code in _CONNECTION:
        lost = _CONNECTION[status.code](_sentence(status, "", place))
        lost.request_id = request_id
        return lost
    text = _sentence(status, request_id, place)
    try:
        status.raise_for()
    except StreamflowError as error:
        error.args = (text,)
        if status.stacks:
            error.add_note("".join(status.stacks[-_EXCERPT_LINES:]).rstrip())
        return error
    raise ValueError("an answer without an error has no exception")


def named_status(name: str, description: str, args: tuple[str, ...] = (), stacks: tuple[str, ...] = (), executor: str = "") -> Status:
    """The status of an error in Jina's form, which has no codes: what no executor raised, and so has no traceback, is known by its name."""
    code = Code.EXECUTOR_ERROR if executor and stacks else _NAMED.get(name, Code.EXECUTOR_ERROR)
    return Status(code, description, name, args, stacks, executor)


def is_connectivity(error: BaseException) -> bool:
    """True for failures outside of user code: they end post() whatever `on_error` and `continue_on_error` say."""
    return isinstance(error, ConnectionError)


def _sentence(status: Status, request_id: str, place: str) -> str:
    where = f"executor {status.executor}{f' ({place})' if place else ''}: " if status.executor else ""
    what = status.description or status.exception or status.code.value
    return f"{where}{what} (request {request_id})" if request_id else f"{where}{what}"
