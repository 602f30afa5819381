"""Server-sent events out of the chunks of an HTTP answer (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator


async def events(chunks: AsyncIterable[bytes]) -> AsyncIterator[tuple[str, str]]:
    """(event name, data) of each event; comments and events without data or name are left out. Chunks may end anywhere."""
    rest = b""
    name, data = "", list[str]()
    async for chunk in chunks:
        *lines, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        for raw in lines:
            field, _, value = raw.decode().partition(":")
            if not raw and (name or data):
                yield name or "message", "\n".join(data)
                name, data = "", []
            elif field == "event":
                name = value.removeprefix(" ")
            elif field == "data":
                data.append(value.removeprefix(" "))
    if name == "end":
        yield name, "\n".join(data)
