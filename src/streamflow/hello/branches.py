"""The executors of `streamflow hello multimodal`: two branches that encode at the same time, and an index that needs both.

A card may have a picture, a caption or both, when it is indexed and when it is searched for. Each executor also works as a plain object.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from streamflow import Executor, requests

from .executors import Hit, Receipt, Result, limit_of
from .features import WORD_DIMENSIONS, Array, Components, word_vector

PICTURE_WEIGHT = 0.75  # against the caption's 0.25; about the best on the indexed part, each of its cards searched for among the others


class Card(BaseDoc):
    """`pixels` (height, width) uint8 and `caption`, of which one may be missing; each branch adds its vector (d,) float32."""

    pixels: Optional[NdArray] = None  # type: ignore[type-arg]  # noqa: UP045  (docarray does not read `X | None`)
    caption: str = ""
    label: str = ""
    picture_vector: Optional[NdArray] = None  # type: ignore[type-arg]  # noqa: UP045
    caption_vector: Optional[NdArray] = None  # type: ignore[type-arg]  # noqa: UP045


class PictureEncoder(Executor):
    """The branch of the pictures."""

    def __init__(self, fit_file: str | None = None, dimensions: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.components = Components(fit_file, dimensions)

    @requests(on=["/index", "/search"])
    def encode(self, docs: DocList[Card], **kwargs: Any) -> DocList[Card]:
        """The same cards, with `picture_vector` where there is a picture."""
        cards = [doc for doc in docs if doc.pixels is not None]
        vectors: Any = self.components.vectors([doc.pixels for doc in cards]) if cards else ()
        for doc, vector in zip(cards, vectors, strict=True):
            doc.picture_vector = vector
        return docs


class CaptionEncoder(Executor):
    """The branch of the captions."""

    @requests(on=["/index", "/search"])
    def encode(self, docs: DocList[Card], **kwargs: Any) -> DocList[Card]:
        """The same cards, with `caption_vector` where there is a caption."""
        for doc in docs:
            if doc.caption:
                vector: Any = word_vector(doc.caption)  # pydantic makes the document's own kind of array of it
                doc.caption_vector = vector
        return docs


class Stored(NamedTuple):
    """What the index keeps of a card; a vector of nothing is zeros."""

    label: str
    picture: Array
    caption: Array


class CardIndexer(Executor):
    """Exact search over both vectors of every card. They live in this process: one replica, no more."""

    def __init__(self, dimensions: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dimensions = dimensions
        self.cards: dict[str, Stored] = {}

    @requests(on="/index")
    def index(self, docs: DocList[Card], **kwargs: Any) -> DocList[Receipt]:
        """Stores by id, so a request that is delivered twice changes nothing."""
        for doc in docs:
            self.cards[str(doc.id)] = self._stored(doc)
        return DocList[Receipt]([Receipt(id=doc.id, indexed=len(self.cards)) for doc in docs])

    @requests(on="/search")
    def search(self, docs: DocList[Card], parameters: dict[str, Any] | None = None, **kwargs: Any) -> DocList[Result]:
        """For each card its `limit` (default 10) nearest, by cosine similarity of pictures, of captions, or the weighted mean of both.

        `parameters["picture_weight"]` in [0, 1], default 0.75, counts for cards with both. Raises `ValueError` for one with neither.
        """
        weight = float((parameters or {}).get("picture_weight", PICTURE_WEIGHT))
        shares = np.array([[_share(doc, weight)] for doc in docs])
        if not self.cards:
            return DocList[Result]([Result(id=doc.id, label=doc.label) for doc in docs])
        asked, stored = [self._stored(doc) for doc in docs], list(self.cards.values())
        of_pictures = np.stack([one.picture for one in asked]) @ np.stack([one.picture for one in stored]).T
        of_captions = np.stack([one.caption for one in asked]) @ np.stack([one.caption for one in stored]).T
        scores = shares * of_pictures + (1.0 - shares) * of_captions
        best = np.argsort(-scores, axis=1, kind="stable")[:, : limit_of(parameters)]
        return DocList[Result]([self._result(doc, row, order) for doc, row, order in zip(docs, scores, best, strict=True)])

    def _stored(self, doc: Card) -> Stored:
        picture = np.zeros(self.dimensions, np.float32) if doc.picture_vector is None else np.asarray(doc.picture_vector)
        caption = np.zeros(WORD_DIMENSIONS, np.float32) if doc.caption_vector is None else np.asarray(doc.caption_vector)
        return Stored(doc.label, picture, caption)

    def _result(self, doc: Card, scores: Array, order: Array) -> Result:
        ids = list(self.cards)
        hits = [Hit(id=ids[at], label=self.cards[ids[at]].label, score=float(scores[at])) for at in order]
        return Result(id=doc.id, label=doc.label, matches=DocList[Hit](hits))


def _share(doc: Card, weight: float) -> float:
    """What the picture counts in a search for `doc`, in [0, 1]; the caption counts the rest."""
    if doc.picture_vector is None and doc.caption_vector is None:
        raise ValueError(f"card {doc.id!r} has neither a picture nor a caption to search for")
    return 0.0 if doc.picture_vector is None else 1.0 if doc.caption_vector is None else weight
