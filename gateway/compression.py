"""Answers compressed where the client accepts it (RFC 9110, section 12.5.3).

Streams go out as they are: an event must not wait in a buffer.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

from .http_io import Receive, Scope, Send

SMALLEST_BYTES = 1024  # below, the headers outweigh what is won
_LEVEL = 4
_WINDOW = {"gzip": 31, "deflate": 15}  # zlib's wbits: gzip header, zlib header
_REFUSED = re.compile(r";\s*q\s*=\s*0(\.0*)?\s*\Z")


class Compressed:
    """`app` with complete answers compressed by `coding` ("gzip" or "deflate")."""

    def __init__(self, app: Any, coding: str) -> None:
        self._app = app
        self._coding = coding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and accepts(dict(scope["headers"]).get(b"accept-encoding", b""), self._coding):
            await self._app(scope, receive, _Sender(send, self._coding).send)
        else:
            await self._app(scope, receive, send)


class _Sender:
    """Holds the head of an answer back until its body tells whether it is whole and worth it."""

    def __init__(self, send: Send, coding: str) -> None:
        self._send = send
        self._coding = coding
        self._head: Any = None

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._head = message
            return
        head, self._head = self._head, None
        if head is not None:
            body = message.get("body", b"")
            if not message.get("more_body") and len(body) >= SMALLEST_BYTES and not _is_coded(head):
                body = _compress(body, self._coding)
                head = {**head, "headers": _headers(head, self._coding, len(body))}
                message = {**message, "body": body}
            await self._send(head)
        await self._send(message)


def accepts(header: bytes, coding: str) -> bool:
    """Whether an `Accept-Encoding` allows `coding`; one that does not name it (or `*`) does not."""
    named = {}
    for item in header.decode("latin-1").lower().split(","):
        name, semicolon, rest = item.strip().partition(";")
        named[name.strip()] = _REFUSED.search(semicolon + rest) is None
    return named.get(coding, named.get("*", False))


def _is_coded(head: Any) -> bool:
    return any(name.lower() == b"content-encoding" for name, _ in head["headers"])


def _headers(head: Any, coding: str, size: int) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in head["headers"] if name.lower() != b"content-length"]
    more = [(b"content-length", b"%d" % size), (b"content-encoding", coding.encode()), (b"vary", b"Accept-Encoding")]
    return [*kept, *more]


def _compress(body: bytes, coding: str) -> bytes:
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW[coding])
    return compressor.compress(body) + compressor.flush()
