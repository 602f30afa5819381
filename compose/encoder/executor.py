"""Texts to vectors by hashing words and letter triples: no model, no download, the same answer from every replica."""

from __future__ import annotations

from typing import Any, Optional
from zlib import crc32

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from streamflow import Executor, requests


class Text(BaseDoc):
    """A text; the encoder adds `embedding` (dimensions,) float32 of length 1."""

    text: str
    embedding: Optional[NdArray] = None  # type: ignore[type-arg]  # noqa: UP045  (docarray does not read `X | None`)


class Encoder(Executor):
    def __init__(self, dimensions: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dimensions = dimensions

    @requests(on=["/index", "/search"])
    def encode(self, docs: DocList[Text], **kwargs: Any) -> DocList[Text]:
        for doc in docs:
            doc.embedding = self.vector(doc.text)
        return docs

    def vector(self, text: str) -> Any:
        """(dimensions,) float32."""
        vector = np.zeros(self.dimensions, dtype=np.float32)
        for piece in pieces(text.lower()):
            hashed = crc32(piece.encode())
            vector[hashed % self.dimensions] += 1.0 if hashed & (1 << 31) else -1.0
        return vector / max(float(np.linalg.norm(vector)), 1e-12)


def pieces(text: str) -> list[str]:
    """Words, and every three letters in a row with the word ends marked."""
    words = text.split()
    return words + [f" {word} "[at : at + 3] for word in words for at in range(len(word))]
