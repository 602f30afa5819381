"""Messages of our own gRPC service (`streamflow.proto`) to and from calls and envelopes."""

from __future__ import annotations

from typing import Any

import msgpack

from streamflow.broker.envelope import COLUMNS, EMPTY, JSON, PROTOBUF, Envelope
from streamflow.broker.errors import Code, InvalidInput
from streamflow.broker.limits import check_depth

from .answers import hops, request_id
from .dispatch import Call
from .jina_wire import read
from .json_wire import earliest
from .proto import streamflow_pb2 as pb
from .view import View

_CONTENT_TYPES = frozenset((JSON, PROTOBUF, COLUMNS, EMPTY))
_LATEST = 1e11  # Unix seconds: the year 5138


def call_of(raw: bytes, view: View, *, deadline: float) -> Call:
    """The call in a serialized `Request`; `deadline` (Unix seconds, 0.0 = none) is that of the gRPC call. Raises `InvalidInput`."""
    return call_of_request(read(pb.Request, raw), view, deadline=deadline)


def call_of_request(request: pb.Request, view: View, *, deadline: float) -> Call:
    """Like `call_of`, for a parsed request."""
    for name in ("content_type", "accept"):
        if getattr(request, name) not in _CONTENT_TYPES:
            raise InvalidInput(f"{name}: unknown content type {getattr(request, name)[:100]!r}")
    if not 0.0 <= request.deadline < _LATEST:
        raise InvalidInput("deadline: must be a time in Unix seconds")
    return Call(
        endpoint=view.name(request.endpoint),
        body=request.body,
        content_type=request.content_type if request.body else EMPTY,
        accept=request.accept or request.content_type or COLUMNS,
        parameters=_unpack_map(request.parameters) if request.parameters else {},
        client_id=request.request_id,
        target_executor=request.target_executor,
        deadline=earliest(request.deadline, deadline),
        trace=dict(request.trace) if request.trace else {},
    )


def answer(envelope: Envelope, started: float) -> bytes:
    """A serialized `Response` for any answer envelope or stream part."""
    response = pb.Response(
        request_id=request_id(envelope),
        routes=_pack([hop for hop in hops(envelope, started)]),
        content_type=envelope.content_type,
        body=bytes(envelope.body),
        position=envelope.position,
        final=envelope.final,
    )
    if envelope.status.code is not Code.OK:
        response.status = _pack(envelope.status.to_wire())
    if envelope.parameters:
        response.parameters = _pack(envelope.parameters)
    if envelope.results:
        response.results = _pack(envelope.results)
    return response.SerializeToString()


def _pack(value: Any) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True, unicode_errors="surrogatepass", default=str))


def _unpack_map(raw: bytes) -> dict[str, Any]:
    try:
        values = msgpack.unpackb(raw, raw=False, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise InvalidInput(f"parameters: not msgpack: {error}") from None
    if not isinstance(values, dict):
        raise InvalidInput(f"parameters: must be a map, not {type(values).__name__}")
    check_depth(values, "parameters")
    return values
