"""Requests of one connection that wait for their answers: JetStream's API, and whoever else answers on core NATS.

Not nats-py's own `request`: before Python 3.12 its `asyncio.wait_for` swallows a cancellation that comes together with the answer, and a
loop that asks again and again then never ends.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import StreamflowError
from .lean import LeanClient

log = logging.getLogger(__name__)

Answer = tuple[bytes | None, bytes]  # header block and payload
_LOOKS = re.compile(r"\$JS\.API\.(DIRECT\.GET|STREAM\.MSG\.GET|STREAM\.INFO|CONSUMER\.INFO)\.")  # which change nothing


@dataclass(frozen=True, slots=True)
class _Question:
    subject: str
    payload: bytes
    answer: asyncio.Future[Answer]


class Questions:
    """`heard` is to be called with what arrives on `inbox`.*"""

    def __init__(self, client: LeanClient, inbox: str) -> None:
        self._client = client
        self.inbox = inbox
        self._cut = len(inbox) + 1
        self._number = 0
        self._open: dict[bytes, _Question] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def ask(self, questions: Sequence[tuple[str, bytes]], timeout_s: float) -> list[Answer]:
        """An answer to each of `questions` (subject, payload). Raises `TimeoutError`, `TooLarge`, `Unavailable`."""
        numbers: list[bytes] = []
        try:
            for subject, payload in questions:
                numbers.append(self._send(subject, payload))
            async with asyncio.timeout(timeout_s):
                return [await self._open[number].answer for number in numbers]
        finally:
            for number in numbers:
                self._open.pop(number, None)

    def _send(self, subject: str, payload: bytes) -> bytes:
        self._number += 1
        number = b"%x" % self._number
        self._client.send(subject, payload, f"{self.inbox}.{self._number:x}")
        self._open[number] = _Question(subject, payload, asyncio.get_running_loop().create_future())
        return number

    def reconnected(self) -> None:
        """Ask again what only looks: the answers may have gone into the connection that there was before."""
        for number, question in self._open.items():
            if _LOOKS.match(question.subject) and not question.answer.done():
                try:
                    self._client.send(question.subject, question.payload, f"{self.inbox}.{number.decode()}")
                except StreamflowError as error:
                    log.debug("%s is not asked again: %s", question.subject, error)

    def heard(self, subject: bytes, _reply: bytes, header: bytes | None, payload: bytes) -> None:
        question = self._open.get(subject[self._cut :])
        if question is not None and not question.answer.done():
            question.answer.set_result((header, payload))
