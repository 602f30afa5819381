"""Which of our errors a gRPC call ended with (https://grpc.github.io/grpc/core/md_doc_statuscodes.html)."""

from __future__ import annotations

import grpc
from grpc import aio

from streamflow.broker.errors import (
    AlreadyExists,
    Cancelled,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    StreamflowError,
    TooLarge,
    Unauthenticated,
)

from .errors import RequestTimeout, ServerUnavailable

_CLASSES: dict[grpc.StatusCode, type[StreamflowError]] = {
    grpc.StatusCode.UNAVAILABLE: ServerUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: RequestTimeout,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNIMPLEMENTED: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.CANCELLED: Cancelled,
}
# What a server that was killed leaves behind, and what grpc.aio says when it was about to write to a stream that has just ended.
_BROKEN = ("RST_STREAM", "Internal error from Core")
_NOT_SAID_WHY = ("", "CANCELLED")  # by a server that stops, or with the channel; one that cancels a request says so


def error_class(error: aio.AioRpcError) -> type[StreamflowError]:
    """Our class for a call that ended with `error`; `ServerUnavailable` where the connection, or the server, is gone."""
    code, details = error.code(), error.details() or ""
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and any(sign in details for sign in _BROKEN):
        return ServerUnavailable
    if code is grpc.StatusCode.CANCELLED and details in _NOT_SAID_WHY:
        return ServerUnavailable
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return TooLarge
    return _CLASSES.get(code, StreamflowError)
