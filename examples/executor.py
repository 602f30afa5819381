"""Two executors of one's own: plain classes with typed documents in and out."""

from __future__ import annotations

from collections import Counter
from typing import Any

from docarray import BaseDoc, DocList

from streamflow import Executor, requests


class Note(BaseDoc):
    text: str


class Counted(BaseDoc):
    """Answer for a note, same id: its number of words and the most frequent ones."""

    text: str
    words: int
    top: list[str]


class Word(BaseDoc):
    """One word of a note."""

    text: str


class Cleaner(Executor):
    """Lower case, letters and digits only."""

    @requests(on=["/count", "/words"])
    def clean(self, docs: DocList[Note], **kwargs: Any) -> DocList[Note]:
        for doc in docs:
            doc.text = " ".join("".join(sign if sign.isalnum() else " " for sign in doc.text.lower()).split())
        return docs


class WordCounter(Executor):
    """Counts words, or gives them one by one.

    `top` sets how many of the most frequent ones are named, `parameters["top"]` does so for one request.
    """

    def __init__(self, top: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.top = top

    @requests(on="/count")
    def count(self, docs: DocList[Note], parameters: dict[str, Any] | None = None, **kwargs: Any) -> DocList[Counted]:
        top = int((parameters or {}).get("top", self.top))
        return DocList[Counted]([self._counted(doc, top) for doc in docs])

    @requests(on="/words")
    async def words(self, doc: Note, **kwargs: Any) -> Word:  # type: ignore[misc]  # the type of one document, as Jina writes it
        """Streams the words of a note, each when the reader has room for it."""
        for word in doc.text.split():
            yield Word(text=word)

    def _counted(self, doc: Note, top: int) -> Counted:
        words = Counter(doc.text.split())
        return Counted(id=doc.id, text=doc.text, words=words.total(), top=[word for word, _ in words.most_common(top)])
