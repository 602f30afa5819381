"""The one table from an outcome on the bus to what each protocol says: HTTP status, gRPC status, WebSocket close code.

gRPC names are those of https://grpc.io/docs/guides/status-codes/. Where `aborts` is false a gRPC answer carries the error in
`header.status` and the call goes on (Jina's form of an executor exception); where it is true a unary call ends with that gRPC status. A
stream of requests goes on after any error but the two that Jina's clients expect to end it (`ends_stream`): nobody serves the executor, or
a deadline passed.
"""

from __future__ import annotations

from typing import NamedTuple

from streamflow.broker.errors import Code, Status

RETRY_AFTER_S = 1  # what a refused client is told to wait
CLOSE_REASON_BYTES = 123  # RFC 6455, 5.5: a close frame holds 125 bytes, two of them the code


class Outcome(NamedTuple):
    """How one `Code` looks outside. `close` is a WebSocket close code, 0 where the socket stays open."""

    http: int
    grpc: str
    aborts: bool = False
    ends_stream: bool = False
    close: int = 0
    retry: bool = False


OUTCOMES: dict[Code, Outcome] = {
    Code.OK: Outcome(200, "OK"),
    Code.EXECUTOR_ERROR: Outcome(500, "UNKNOWN"),
    Code.INVALID_ARGUMENT: Outcome(422, "INVALID_ARGUMENT"),
    Code.NOT_FOUND: Outcome(404, "NOT_FOUND"),
    Code.ALREADY_EXISTS: Outcome(409, "ALREADY_EXISTS", aborts=True),
    Code.UNAUTHENTICATED: Outcome(401, "UNAUTHENTICATED", aborts=True),
    Code.PERMISSION_DENIED: Outcome(403, "PERMISSION_DENIED", aborts=True),
    Code.DEADLINE_EXCEEDED: Outcome(504, "DEADLINE_EXCEEDED", aborts=True, ends_stream=True, close=1011),
    Code.CANCELLED: Outcome(499, "CANCELLED", aborts=True),
    Code.RESOURCE_EXHAUSTED: Outcome(429, "RESOURCE_EXHAUSTED", aborts=True, retry=True),
    Code.TOO_LARGE: Outcome(413, "RESOURCE_EXHAUSTED", aborts=True),
    Code.UNAVAILABLE: Outcome(503, "UNAVAILABLE", aborts=True, ends_stream=True, close=1011, retry=True),
    Code.QUARANTINED: Outcome(500, "ABORTED"),
    Code.INTERNAL: Outcome(500, "INTERNAL"),
}


def outcome(code: Code) -> Outcome:
    """What to say for `code`."""
    return OUTCOMES[code]


def retry_after_s(status: Status) -> int:
    """What a refused client is told to wait; a caller above its own limits (`quotas.OverLimit`) longer than others."""
    return int(status.args[1]) if status.exception == "OverLimit" else RETRY_AFTER_S


def close_reason(text: str) -> str:
    """`text` cut to what fits into a WebSocket close frame, never inside a character."""
    return text.encode()[:CLOSE_REASON_BYTES].decode("utf-8", "ignore")
