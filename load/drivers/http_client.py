"""A keep-alive HTTP/1.1 connection, one request at a time: no more than the load generator needs."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit


class BadAnswer(RuntimeError):
    """The server closed early or sent something that is not HTTP/1.1 as it is understood here."""


class Connection:
    """Not safe for two requests at once; the pool hands it to one at a time."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        head = f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
        self._head = head.encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body. Any failure closes the connection, the next request opens a new one."""
        try:
            reader, writer = await self._open()
            writer.write(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))
            return await _read(reader)
        except BaseException:
            self._drop()
            raise

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=1 << 24)
        return self._streams

    def _drop(self) -> asyncio.StreamWriter | None:
        if self._streams is None:
            return None
        _, writer = self._streams
        self._streams = None
        writer.close()
        return writer

    async def close(self) -> None:
        if writer := self._drop():
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        if b"transfer-encoding: chunked" in head:
            return status, await _chunks(reader)
        return status, await reader.readexactly(_length(head))
    except (asyncio.IncompleteReadError, ValueError) as error:
        raise BadAnswer(str(error)) from error


def _length(head: bytes) -> int:
    start = head.index(b"content-length:") + 15
    return int(head[start : head.index(b"\r\n", start)])


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(parts)
