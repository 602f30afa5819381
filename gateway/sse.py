"""Streams over HTTP: one Server-Sent Event per document, in the form Jina's client reads.

Asked by GET, or POST, of a streaming endpoint; `accept: application/json` in a POST asks for all documents in one answer instead, and
`accept: text/event-stream` makes any endpoint answer document by document.

`event: update` with `data: <document as JSON>`, at the end `event: end`; an error after the first document is `event: error` with the
failure as JSON, no `end`, and a connection that is closed within the answer (RFC 9112, 8: it is incomplete), since that client and others
that look for documents only would take it for whole. Lines end in CRLF, because that client finds the document by its offset. An error
before the first document is a plain answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import orjson

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import Code, InvalidInput

from .answers import document, failure
from .desk import Desk
from .dispatch import Call
from .http_io import BREAK, Receive, Scope, Send, id_header, write_answer
from .json_wire import Headers, build
from .peek import NOTHING, parse

LINGER_S = 0.1  # readers may drop what they have not looked at when the connection breaks
PING_S = 15.0  # a comment line after this much time keeps proxies from closing a silent connection
_PING = b": still working\r\n\r\n"
_END = b"event: end\r\ndata: \r\n\r\n"  # an EventSource of a browser drops events that have no data line
_KEYS = ("data", "parameters", "header", "routes")
_ROUTING_KEYS = ("execEndpoint", "exec_endpoint", "targetExecutor", "target_executor", "requestId", "request_id")
_WRAPPER_KEYS = frozenset(_KEYS + _ROUTING_KEYS)


def wants_events(method: str, endpoint: EndpointInfo, headers: Headers) -> bool:
    """Whether a request for `endpoint` is to be answered by a stream of events."""
    accept = headers.get(b"accept", b"").lower()
    if b"text/event-stream" in accept:
        return True
    return endpoint.streaming and (method == "GET" or not accept.startswith(b"application/json"))


def document_call(endpoint: EndpointInfo, *, query: bytes, headers: Headers, body: bytes) -> Call:
    """The call for a stream, or by GET. Its document is the JSON body, the `data` of a body in the usual form, or the query string.

    Raises `InvalidInput`.
    """
    if not body:
        queried = orjson.dumps(_from_query(query, endpoint.request_schema or {}))
        return build(endpoint.name, headers, b'{"data":[%b]}' % queried, NOTHING)
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not valid JSON: {error}") from None
    if _is_wrapped(message, endpoint.request_schema or {}):
        return build(endpoint.name, headers, body, parse(body))
    return build(endpoint.name, headers, b'{"data":[%b]}' % body, NOTHING)


def _is_wrapped(message: Any, schema: dict[str, Any]) -> bool:
    """Whether `message` is `{"data": ..., "parameters": ...}` rather than the document itself."""
    if not isinstance(message, dict) or not isinstance(message.get("data"), (dict, list)):
        return False
    return message.keys() <= _WRAPPER_KEYS and "data" not in schema.get("properties", {})


def _from_query(query: bytes, schema: dict[str, Any]) -> dict[str, Any]:
    """A document from `?text=hello&limit=3`: strings, and numbers or booleans where the schema says so."""
    properties = schema.get("properties", {})
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return {name: _typed(value, properties.get(name)) for name, value in pairs}


def _typed(value: str, schema: Any) -> Any:
    options = [schema, *schema.get("anyOf", [])] if isinstance(schema, dict) else []
    types = {option.get("type") for option in options if isinstance(option, dict)}
    try:
        if "string" in types or not types & {"integer", "number", "boolean"}:
            return value
        if "boolean" in types:
            return {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
        number = int(value) if "integer" in types else float(value)
        return number if -(1 << 63) <= number < 1 << 64 else float(value)  # as JSON bodies are read
    except ValueError:
        return value  # the worker names the field in its refusal


class EventStream:
    """Answers calls whose documents are wanted as they come."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def answer(self, call: Call, scope: Scope, receive: Receive, send: Send, started: float) -> None:
        """Send the parts as they come; a client that leaves cancels the request."""
        pump = asyncio.create_task(self._pump(call, scope, send, started))
        watch = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait((pump, watch), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            if not pump.done():
                pump.cancel()
            await asyncio.gather(pump, watch, return_exceptions=True)
        if not pump.cancelled():
            pump.result()

    async def _pump(self, call: Call, scope: Scope, send: Send, started: float) -> None:
        async with aclosing(self._desk.stream(call)) as parts:
            part = await anext(parts, None)
            if part is not None and part.status.code is not Code.OK:
                await write_answer(send, part, started)
                return
            await _begin(send, part)
            async with _pings(send):
                while part is not None:
                    await _room(send)
                    await _send(send, _event(part, started))
                    if part.status.code is not Code.OK:
                        await _break(scope)
                        break
                    part = await anext(parts, None)
            await _send(send, _END if part is None else b"", more=False)


async def _break(scope: Scope) -> None:
    """Close the connection, where the server lets us, and wait for that to end this task."""
    close = (scope.get("state") or {}).get(BREAK)
    if close is not None:
        await asyncio.sleep(LINGER_S)
        close()
        await asyncio.sleep(LINGER_S)


async def _begin(send: Send, part: Envelope | None) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, *(id_header(part) if part else ())]})


async def _room(send: Send) -> None:
    """Wait until the client has read: one that does not costs a document, and not its text as well."""
    await send({"type": "http.response.body", "body": b"", "more_body": True})


async def _send(send: Send, text: bytes, *, more: bool = True) -> None:
    if text or not more:
        await send({"type": "http.response.body", "body": text, "more_body": more})


def _event(part: Envelope, started: float) -> bytes:
    if part.status.code is not Code.OK:
        return b"event: error\r\ndata: %b\r\n\r\n" % failure(part, started)
    text = document(part.body)
    if not text:
        return b""
    # Inside JSON a line break is mere white space and "event: " can only stand in a string, where jina's client would split at it.
    text = text.replace(b"\r", b" ").replace(b"\n", b" ").replace(b"event: ", b"event:\\u0020")
    return b"event: update\r\ndata: %b\r\n\r\n" % text


@asynccontextmanager
async def _pings(send: Send) -> AsyncIterator[None]:
    async def ping() -> None:
        while True:
            await asyncio.sleep(PING_S)
            await _send(send, _PING)

    task = asyncio.create_task(ping())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
