"""The work of the batch: typed documents in, typed documents out."""

from __future__ import annotations

from typing import Any

from docarray import BaseDoc, DocList

from streamflow import Executor, requests


class Text(BaseDoc):
    """One input."""

    text: str


class Counts(BaseDoc):
    """Its result, same id."""

    words: int
    longest: str


class Counter(Executor):
    """Counts the words of texts."""

    @requests(on="/count")
    def count(self, docs: DocList[Text], **kwargs: Any) -> DocList[Counts]:
        """One result for each text. Raises `ValueError` for a text without words: its whole request fails, the others do not."""
        return DocList[Counts]([self._counts(doc) for doc in docs])

    def _counts(self, doc: Text) -> Counts:
        words = doc.text.split()
        if not words:
            raise ValueError(f"{doc.id}: no words to count")
        return Counts(id=doc.id, words=len(words), longest=max(words, key=len))
