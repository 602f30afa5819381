"""An input that knows how far a client reads it ahead of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from docarray import BaseDoc

TEXT = "x" * 100_000
PAUSE_S = 0.002  # of a reader that is slower than whoever answers


class Reading:
    """`count` documents of 100 kB, made by `document(text=...)`. `most_ahead`: bytes that were read at a time and not answered yet."""

    def __init__(self, document: Callable[..., BaseDoc], count: int) -> None:
        self._document = document
        self._count = count
        self._read = 0
        self.taken = 0
        self.most_ahead = 0

    async def documents(self) -> AsyncIterator[BaseDoc]:
        for _ in range(self._count):
            self.most_ahead = max(self.most_ahead, self._read - self.taken)
            self._read += len(TEXT)
            yield self._document(text=TEXT)

    async def take(self, answers: AsyncIterator[list[BaseDoc]]) -> None:
        """Take the answers, one document each, slowly."""
        async for (doc,) in answers:
            await asyncio.sleep(PAUSE_S)
            self.taken += len(doc.text)
        assert self.taken == self._count * len(TEXT)
