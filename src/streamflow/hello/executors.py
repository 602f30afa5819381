"""The two executors of `streamflow hello digits`: pictures to vectors, vectors to neighbours. Both also work as plain objects."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from streamflow import Executor, requests

from .pictures import bundled, split, to_matrix


class Picture(BaseDoc):
    """A labelled picture: `pixels` (height, width) uint8; the encoder adds `embedding` (dimensions,) float32 of length 1."""

    pixels: NdArray  # type: ignore[type-arg]  # docarray would read an argument as a shape
    label: str = ""
    embedding: Optional[NdArray] = None  # type: ignore[type-arg]  # noqa: UP045  (docarray does not read `X | None`)


class Receipt(BaseDoc):
    """Answer for an indexed picture, same id: how many pictures the index holds."""

    indexed: int


class Hit(BaseDoc):
    """One neighbour: id and label of an indexed picture, cosine similarity in [-1, 1]."""

    label: str
    score: float


class Result(BaseDoc):
    """Answer for a query, same id: neighbours, best first."""

    label: str = ""
    matches: DocList[Hit] = DocList[Hit]()


class Encoder(Executor):
    """Principal components of the flattened picture, fitted in the constructor: no randomness, so all replicas agree."""

    def __init__(self, fit_file: str | None = None, dimensions: int = 32, **kwargs: Any) -> None:
        """`fit_file`: an `.npy` array (n, pixels) to fit on; without one the indexed part of the bundled digits."""
        super().__init__(**kwargs)
        sample = np.load(fit_file, allow_pickle=False) if fit_file else to_matrix(split(bundled())[0])
        self.mean = sample.mean(axis=0)
        _, _, axes = np.linalg.svd(sample - self.mean, full_matrices=False)
        self.axes = axes[:dimensions].T.astype(np.float32)

    @requests(on=["/index", "/search"])
    def encode(self, docs: DocList[Picture], **kwargs: Any) -> DocList[Picture]:
        """The same documents with `embedding` set."""
        flat = np.stack([np.asarray(doc.pixels, dtype=np.float32).ravel() for doc in docs]) / 255.0
        vectors = (flat - self.mean) @ self.axes
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12
        for doc, vector in zip(docs, vectors.astype(np.float32), strict=True):
            doc.embedding = vector
        return docs


class Indexer(Executor):
    """Exact cosine search over everything indexed. The vectors live in this process: one replica, no more."""

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
        limit = int((parameters or {}).get("limit", 10))
        if not self.vectors:
            return DocList[Result]([Result(id=doc.id, label=doc.label) for doc in docs])
        ids = list(self.vectors)
        scores = np.stack([np.asarray(doc.embedding) for doc in docs]) @ np.stack(list(self.vectors.values())).T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
        return DocList[Result]([self._result(doc, ids, row, order) for doc, row, order in zip(docs, scores, best, strict=True)])

    def _result(self, doc: Picture, ids: list[str], scores: Any, order: Any) -> Result:
        hits = [Hit(id=ids[at], label=self.labels[ids[at]], score=float(scores[at])) for at in order]
        return Result(id=doc.id, label=doc.label, matches=DocList[Hit](hits))
