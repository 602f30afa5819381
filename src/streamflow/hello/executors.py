"""The executors of `streamflow hello digits`: pictures to vectors, vectors to neighbours, neighbours of all shards in one order.

Each also works as a plain object.
"""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from streamflow import Executor, requests

from .features import Components


class Picture(BaseDoc):
    """A labelled picture: `pixels` (height, width) uint8; the encoder adds `embedding` (dimensions,) float32 of length 1."""

    pixels: NdArray  # type: ignore[type-arg]  # docarray would read an argument as a shape
    label: str = ""
    embedding: Optional[NdArray] = None  # type: ignore[type-arg]  # noqa: UP045  (docarray does not read `X | None`)


class Receipt(BaseDoc):
    """Answer for an indexed picture, same id: how many pictures the shard holds that took it."""

    indexed: int


class Hit(BaseDoc):
    """One neighbour: id and label of an indexed picture, cosine similarity in [-1, 1]."""

    label: str
    score: float


class Result(BaseDoc):
    """Answer for a query, same id: neighbours, best first."""

    label: str = ""
    matches: DocList[Hit] = DocList[Hit]()


def limit_of(parameters: dict[str, Any] | None) -> int:
    """How many neighbours a request asks for."""
    return int((parameters or {}).get("limit", 10))


class Encoder(Executor):
    """Principal components of the picture."""

    def __init__(self, fit_file: str | None = None, dimensions: int = 32, **kwargs: Any) -> None:
        """`fit_file`: as for `Components`."""
        super().__init__(**kwargs)
        self.components = Components(fit_file, dimensions)

    @requests(on=["/index", "/search"])
    def encode(self, docs: DocList[Picture], **kwargs: Any) -> DocList[Picture]:
        """The same documents with `embedding` set."""
        for doc, vector in zip(docs, self.components.vectors([doc.pixels for doc in docs]), strict=True):
            doc.embedding = vector
        return docs


class Indexer(Executor):
    """Exact cosine search over the pictures of one shard. The vectors live in this process: one replica of each shard, no more."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vectors: dict[str, np.ndarray[Any, Any]] = {}
        self.labels: dict[str, str] = {}

    @requests(on="/index")
    def index(self, docs: DocList[Picture], **kwargs: Any) -> DocList[Receipt]:
        """Stores by id, so a request that is delivered twice changes nothing."""
        for doc in docs:
            self.vectors[str(doc.id)] = np.asarray(doc.embedding)
            self.labels[str(doc.id)] = doc.label
        return DocList[Receipt]([Receipt(id=doc.id, indexed=len(self.vectors)) for doc in docs])

    @requests(on="/search")
    def search(self, docs: DocList[Picture], parameters: dict[str, Any] | None = None, **kwargs: Any) -> DocList[Result]:
        """For each query its `parameters["limit"]` (default 10) nearest pictures; equal scores in order of indexing."""
        if not self.vectors:
            return DocList[Result]([Result(id=doc.id, label=doc.label) for doc in docs])
        ids = list(self.vectors)
        scores = np.stack([np.asarray(doc.embedding) for doc in docs]) @ np.stack(list(self.vectors.values())).T
        best = np.argsort(-scores, axis=1, kind="stable")[:, : limit_of(parameters)]
        return DocList[Result]([self._result(doc, ids, row, order) for doc, row, order in zip(docs, scores, best, strict=True)])

    def _result(self, doc: Picture, ids: list[str], scores: Any, order: Any) -> Result:
        hits = [Hit(id=ids[at], label=self.labels[ids[at]], score=float(scores[at])) for at in order]
        return Result(id=doc.id, label=doc.label, matches=DocList[Hit](hits))


class Reducer(Executor):
    """The neighbours that the shards found, in one order. The queue has put the answers of all shards together, same id = one document."""

    @requests(on="/search")
    def rank(self, docs: DocList[Result], parameters: dict[str, Any] | None = None, **kwargs: Any) -> DocList[Result]:
        """The best `parameters["limit"]` (default 10) of each query; equal scores by id, whichever shard holds them."""
        for doc in docs:
            ranked = sorted(doc.matches, key=lambda hit: (-hit.score, hit.id))
            doc.matches = DocList[Hit](ranked[: limit_of(parameters)])
        return docs
