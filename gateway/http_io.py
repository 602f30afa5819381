"""Reading a request's body and writing an answer, in raw ASGI (https://asgi.readthedocs.io/en/latest/specs/www.html)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import InvalidInput, StreamflowError, TooLarge

from .answers import print_json, request_id
from .desk import refused
from .json_wire import REQUEST_ID_HEADER
from .keeping import is_pending
from .status import RETRY_AFTER_S, outcome, retry_after_s

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Mapping[bytes, bytes]
BREAK = "streamflow.break"  # in a scope's `state`, where our own server made it: closes the connection, whatever is under way
ExtraHeaders = tuple[tuple[bytes, bytes], ...]

RESULTS = "/results"  # the answers of earlier requests lie below it
_JSON_TYPE = re.compile(rb"\s*(application/([\w.-]+\+)?json|text/json)\s*(;|\Z)", re.IGNORECASE)
_SAFE_ID = re.compile(r"[\x21-\x7e]{1,512}\Z")
_JSON_HEADER = (b"content-type", b"application/json")


class ClientGone(Exception):
    """The client left before its request was complete."""


class UnsupportedType(InvalidInput):
    """A body that is not JSON, or is compressed."""


def check_type(headers: Headers) -> None:
    """Raise `UnsupportedType` unless the body is plain JSON (a body without a type counts as JSON)."""
    content_type = headers.get(b"content-type")
    if content_type and not _JSON_TYPE.match(content_type):
        raise UnsupportedType(f"content-type {content_type.decode('latin-1')[:100]!r}: send application/json")
    encoding = headers.get(b"content-encoding")
    if encoding and encoding.lower() != b"identity":
        raise UnsupportedType(f"content-encoding {encoding.decode('latin-1')[:100]!r}: send the body uncompressed")


async def read_body(receive: Receive, headers: Headers, limit_bytes: int) -> bytes:
    """The whole body. Raises `TooLarge` above `limit_bytes`, at once when the client says its size, and `ClientGone`."""
    if int(headers.get(b"content-length", b"0")) > limit_bytes:
        raise TooLarge(f"the body is larger than {limit_bytes} bytes")
    chunk, more = await _read_chunk(receive)
    if not more and len(chunk) <= limit_bytes:
        return chunk
    chunks, size = [chunk], len(chunk)
    while more and size <= limit_bytes:
        chunk, more = await _read_chunk(receive)
        chunks.append(chunk)
        size += len(chunk)
    if size > limit_bytes:
        raise TooLarge(f"the body is larger than {limit_bytes} bytes")
    return b"".join(chunks)


async def _read_chunk(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


async def write_answer(send: Send, envelope: Envelope, started: float, *, http_status: int = 0, extra: ExtraHeaders = ()) -> None:
    """The HTTP response for an answer envelope; `http_status` overrides the table's, `started` is the request's arrival (Unix seconds)."""
    body = print_json(envelope, started)
    headers = [_JSON_HEADER, (b"content-length", b"%d" % len(body)), *extra, *answer_headers(envelope)]
    await send({"type": "http.response.start", "status": http_status or status_of(envelope), "headers": headers})
    await send({"type": "http.response.body", "body": body})


def status_of(envelope: Envelope) -> int:
    """The HTTP status of an answer; 202 for one that is still to come."""
    return 202 if is_pending(envelope) else outcome(envelope.status.code).http


def answer_headers(envelope: Envelope) -> ExtraHeaders:
    """Headers by what the answer is: its request id, when to come again, and where to find one that is still to come."""
    headers = id_header(envelope)
    if is_pending(envelope):
        location = f"{RESULTS}/{quote(request_id(envelope), safe='')}"
        return (*headers, (b"location", location.encode()), (b"retry-after", b"%d" % RETRY_AFTER_S))
    if outcome(envelope.status.code).retry:
        return (*headers, (b"retry-after", b"%d" % retry_after_s(envelope.status)))
    return headers


def id_header(envelope: Envelope) -> ExtraHeaders:
    """`X-Request-Id` of the answer; left out for an id (from a body) that holds what no header may."""
    shown = request_id(envelope)
    return ((REQUEST_ID_HEADER, shown.encode("ascii")),) if _SAFE_ID.match(shown) else ()


def closing(send: Send) -> Send:
    """`send` for a connection that takes no further request: this gateway is leaving."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return sending


async def refuse(
    send: Send, error: StreamflowError, headers: Headers, started: float, *, http_status: int = 0, extra: ExtraHeaders = ()
) -> None:
    """Answer a request that never became a call."""
    envelope = refused(error, client_id=headers.get(REQUEST_ID_HEADER, b"").decode("latin-1"))
    await write_answer(send, envelope, started, http_status=http_status, extra=extra)
