"""JSON requests (HTTP and WebSocket) as a `Call`: the body untouched, routing keys and headers beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping

import orjson

from streamflow.broker.envelope import EMPTY, JSON
from streamflow.broker.errors import InvalidInput

from . import keeping
from .consistency import HEADER as CONSISTENCY_HEADER
from .consistency import is_latest, is_latest_in
from .dispatch import Call
from .peek import NOTHING, Routing, parse, peek
from .view import FALLBACK, View

TIMEOUT_HEADER = b"x-streamflow-timeout-ms"  # milliseconds this request may take, from its arrival
REQUEST_ID_HEADER = b"x-request-id"
GENERIC = "/post"  # takes any endpoint, by `execEndpoint`
_TRACE_HEADERS = ((b"traceparent", "traceparent"), (b"tracestate", "tracestate"))
# What a request may ask for in its headers; most have none of them.
_WISHES = frozenset({TIMEOUT_HEADER, CONSISTENCY_HEADER, *keeping.HEADERS, *(header for header, _ in _TRACE_HEADERS)})

Headers = Mapping[bytes, bytes]


def http_call(path: str, headers: Headers, body: bytes, view: View) -> Call:
    """The call for `POST path`. Raises `InvalidInput` naming the field or header, `NotFound` for an endpoint that nobody serves.

    Only HTTP refuses those: elsewhere a request for an unbound endpoint passes through the flow unchanged, as in Jina.
    """
    endpoint = view.name(path)
    generic = path.rstrip("/") in (GENERIC, FALLBACK) and (endpoint == FALLBACK or endpoint not in view.endpoints)
    routing = peek(body) if body else NOTHING
    if generic:
        endpoint = _named_endpoint(path, body, routing, view)
    unknown = view.unknown(endpoint) if endpoint not in view.endpoints else None
    if unknown is not None:
        raise unknown
    return build(endpoint, headers, body, routing)


def socket_call(path: str, headers: Headers, body: bytes, view: View) -> Call:
    """The call for one JSON message on a WebSocket opened at `path`. Raises `InvalidInput`."""
    routing = parse(body)
    endpoint = routing.endpoint or path
    if endpoint == "/" and "/" not in view.endpoints and not routing.endpoint:
        raise InvalidInput("execEndpoint: required on a socket at '/'")
    call = build(view.name(endpoint), headers, body, routing)
    call.latest = call.latest or is_latest_in(body)
    keeping.read_message(call, body)
    return call


def stream_wanted(message: bytes) -> bool | None:
    """What `stream` in a WebSocket message says: true = an answer for each document as it comes, false = one answer for all.

    None = nothing is said. Raises `InvalidInput` for other values.
    """
    if b'"stream"' not in message:
        return None
    wanted = orjson.loads(message).get("stream")
    if wanted is not None and not isinstance(wanted, bool):
        raise InvalidInput("stream: must be true or false")
    return wanted


def build(endpoint: str, headers: Headers, body: bytes, routing: Routing) -> Call:
    """The call for `endpoint`; the id and the deadline of the body win over those of the headers."""
    call = Call(
        endpoint=endpoint,
        body=body,
        content_type=JSON if body else EMPTY,
        accept=JSON,
        client_id=routing.request_id or headers.get(REQUEST_ID_HEADER, b"").decode("latin-1"),
        target_executor=routing.target_executor,
        deadline=routing.deadline,
    )
    read_wishes(call, headers)
    return call


def read_wishes(call: Call, headers: Headers) -> None:
    """Note in `call` what the headers ask for beside its endpoint and id. Raises `InvalidInput`."""
    if _WISHES.isdisjoint(headers):
        return
    call.deadline = earliest(call.deadline, _timeout_of(headers))
    call.trace = {name: headers[key].decode("latin-1") for key, name in _TRACE_HEADERS if key in headers}
    call.latest = call.latest or is_latest(headers.get(CONSISTENCY_HEADER, b"").decode("latin-1"))
    keeping.read_headers(call, headers)


def _named_endpoint(path: str, body: bytes, routing: Routing, view: View) -> str:
    named = routing.endpoint
    if named:
        return view.name(named)
    if path.rstrip("/") == FALLBACK:
        return FALLBACK
    if body:
        parse(body)  # a body that is no object gets that said first
    raise InvalidInput("execEndpoint: required for /post")


def _timeout_of(headers: Headers) -> float:
    """The deadline (Unix seconds) that the client's header asks for, 0.0 = none."""
    raw = headers.get(TIMEOUT_HEADER)
    if raw is None:
        return 0.0
    try:
        timeout_ms = float(raw)
    except ValueError:
        timeout_ms = -1.0
    if not 0 < timeout_ms < 1e12:
        raise InvalidInput(f"header {TIMEOUT_HEADER.decode()}: must be a number of milliseconds above 0")
    return time.time() + timeout_ms / 1000


def earliest(*deadlines: float) -> float:
    """The first of several deadlines, where 0.0 means none."""
    return min((deadline for deadline in deadlines if deadline), default=0.0)
