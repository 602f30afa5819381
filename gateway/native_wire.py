"""Messages of our own gRPC service (`streamflow.proto`) to and from calls and envelopes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgpack

from streamflow.broker.envelope import COLUMNS, EMPTY, JSON, PROTOBUF, Envelope
from streamflow.broker.errors import Code, InvalidInput
from streamflow.broker.limits import check_depth

from .answers import hops, request_id
from .dispatch import Call
from .jina_wire import read
from .keeping import is_pending
from .proto import streamflow_pb2 as pb
from .view import View

_CONTENT_TYPES = frozenset((JSON, PROTOBUF, COLUMNS, EMPTY))
_LATEST = 1e11  # Unix seconds: the year 5138


def call_of(raw: bytes, view: View) -> Call:
    """The call in a serialized `Request`. Raises `InvalidInput`."""
    return call_of_request(read(pb.Request, raw), view)


def call_of_request(request: pb.Request, view: View) -> Call:
    """Like `call_of`, for a parsed request."""
    for name in ("content_type", "accept"):
        checked_type(name, getattr(request, name))
    if not 0.0 <= request.deadline < _LATEST:
        raise InvalidInput("deadline: must be a time in Unix seconds")
    return Call(
        endpoint=view.name(request.endpoint),
        body=request.body,
        content_type=request.content_type if request.body else EMPTY,
        accept=request.accept or request.content_type or COLUMNS,
        parameters=unpack_map(request.parameters) if request.parameters else {},
        client_id=request.request_id,
        target_executor=request.target_executor,
        deadline=request.deadline,
        trace=dict(request.trace) if request.trace else {},
    )


def requests_of(raw: bytes) -> Iterable[pb.Request]:
    """The requests in a serialized `Requests`. Raises `InvalidInput`."""
    requests: Iterable[pb.Request] = read(pb.Requests, raw).requests
    return requests


def responses_of(responses: list[pb.Response]) -> bytes:
    """A serialized `Responses`."""
    return pb.Responses(responses=responses).SerializeToString()


def answer(envelope: Envelope, started: float) -> bytes:
    """A serialized `Response` for any answer envelope or stream part."""
    return message_of(envelope, started).SerializeToString()


def message_of(envelope: Envelope, started: float) -> pb.Response:
    """The `Response` for any answer envelope or stream part."""
    response = pb.Response(
        request_id=request_id(envelope),
        routes=_pack([hop for hop in hops(envelope, started)]),
        content_type=envelope.content_type,
        body=bytes(envelope.body),
        position=envelope.position,
        final=envelope.final,
        pending=is_pending(envelope),
    )
    if envelope.status.code is not Code.OK:
        response.status = _pack(envelope.status.to_wire())
    if envelope.parameters:
        response.parameters = _pack(envelope.parameters)
    if envelope.results:
        response.results = _pack(envelope.results)
    return response


def checked_type(field: str, content_type: str) -> str:
    """Raises `InvalidInput` naming `field` for a content type that nobody could read."""
    if content_type not in _CONTENT_TYPES:
        raise InvalidInput(f"{field}: unknown content type {content_type[:100]!r}")
    return content_type


def _pack(value: Any) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True, unicode_errors="surrogatepass", default=str))


def unpack_map(raw: bytes) -> dict[str, Any]:
    """Parameters. Raises `InvalidInput`."""
    try:
        values = msgpack.unpackb(raw, raw=False, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise InvalidInput(f"parameters: not msgpack: {error}") from None
    if not isinstance(values, dict):
        raise InvalidInput(f"parameters: must be a map, not {type(values).__name__}")
    check_depth(values, "parameters")
    return values
