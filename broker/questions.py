"""Requests of one connection that wait for their answers: JetStream's API, and whoever else answers on core NATS.

Not nats-py's own `request`: before Python 3.12 its `asyncio.wait_for` swallows a cancellation that comes together with the answer, and a
loop that asks again and again then never ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from .lean import LeanClient

Answer = tuple[bytes | None, bytes]  # header block and payload


class Questions:
    """`heard` is to be called with what arrives on `inbox`.*"""

    def __init__(self, client: LeanClient, inbox: str) -> None:
        self._client = client
        self.inbox = inbox
        self._cut = len(inbox) + 1
        self._number = 0
        self._open: dict[bytes, asyncio.Future[Answer]] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def ask(self, questions: Sequence[tuple[str, bytes]], timeout_s: float) -> list[Answer]:
        """An answer to each of `questions` (subject, payload). Raises `TimeoutError`, `TooLarge`, `Unavailable`."""
        numbers: list[bytes] = []
        try:
            for subject, payload in questions:
                numbers.append(self._send(subject, payload))
            async with asyncio.timeout(timeout_s):
                return [await self._open[number] for number in numbers]
        finally:
            for number in numbers:
                self._open.pop(number, None)

    def _send(self, subject: str, payload: bytes) -> bytes:
        self._number += 1
        number = b"%x" % self._number
        self._client.send(subject, payload, f"{self.inbox}.{self._number:x}")
        self._open[number] = asyncio.get_running_loop().create_future()
        return number

    def heard(self, subject: bytes, _reply: bytes, header: bytes | None, payload: bytes) -> None:
        future = self._open.get(subject[self._cut :])
        if future is not None and not future.done():
            future.set_result((header, payload))
