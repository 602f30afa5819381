"""Executors that answer document by document.

Lines of the ledger: `start-<name> <pid>`, and `said` or `over`, `<pid> <attempt> <number> <Unix s> <word>`.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from docarray import BaseDoc, DocList

from streamflow import Executor, requests


class Word(BaseDoc):
    text: str = ""
    number: int = -1
    made: float = 0.0  # Unix seconds


def _begun(ledger: str, name: str) -> int:
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"start-{name} {os.getpid()}\n".encode())
    return file


class Talker(Executor):
    """`/say` (sync) and `/tell` (async) count to `n`, with `pause_s` after each document, in which `/tell` blocks the event loop.

    `bad_at` raises there, `die_at` ends the process.
    """

    def __init__(self, ledger: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._ledger = _begun(ledger, "talk")

    @requests(on="/say")
    def say(self, doc: Word, parameters: dict[str, Any], context: Any = None, **kwargs: Any) -> Word:  # type: ignore[misc]
        number = -1
        try:
            for number in range(int(parameters.get("n", 10))):
                yield self._word(doc, number, context, parameters)
                time.sleep(parameters.get("pause_s", 0.0))
        finally:
            self._write("over", number, context, doc.text)

    @requests(on="/tell")
    async def tell(self, doc: Word, parameters: dict[str, Any], context: Any = None, **kwargs: Any) -> Word:  # type: ignore[misc]
        number = -1
        try:
            for number in range(int(parameters.get("n", 10))):
                yield self._word(doc, number, context, parameters)
                time.sleep(parameters.get("pause_s", 0.0))
                await asyncio.sleep(parameters.get("rest_s", 0.0))
        finally:
            self._write("over", number, context, doc.text)

    @requests(on="/hello")
    def hello(self, doc: Word, **kwargs: Any) -> Word:  # type: ignore[misc]
        for number in range(100):
            yield Word(text=f"{doc.text} {number}")

    def _word(self, doc: Word, number: int, context: Any, parameters: dict[str, Any]) -> Word:
        if number == parameters.get("bad_at"):
            raise ValueError(f"no word {number}")
        if number == parameters.get("die_at"):
            os._exit(1)
        self._write("said", number, context, doc.text)
        return Word(text=doc.text, number=number, made=time.time())

    def _write(self, what: str, number: int, context: Any, word: str) -> None:
        os.write(self._ledger, f"{what} {os.getpid()} {context.attempt} {number} {time.time():.4f} {word}\n".encode())


class Mark(Executor):
    """Appends `mark`."""

    def __init__(self, mark: str = "+", ledger: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mark = mark
        if ledger:
            _begun(ledger, "one")

    @requests
    def add(self, docs: DocList[Word], **kwargs: Any) -> None:
        for doc in docs:
            doc.text += self.mark


class Model(Executor):
    """A toy language model: the prompt grows by one word of its only sentence."""

    words = ("The", "capital", "of", "France", "is", "Paris.")

    @requests(on="/stream")
    def generate(self, doc: Word, parameters: dict[str, Any], **kwargs: Any) -> Word:  # type: ignore[misc]
        for number in range(1, min(int(parameters.get("max_tokens", 100)), len(self.words)) + 1):
            yield Word(text=" ".join(self.words[:number]), number=number)
