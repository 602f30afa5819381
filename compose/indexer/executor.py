"""Exact cosine search. What is indexed is appended to a file before it is answered, so a killed indexer comes back with it.

The vectors live in one process: run one replica of this executor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from streamflow import Executor, requests


class Text(BaseDoc):
    text: str
    embedding: Optional[NdArray] = None  # type: ignore[type-arg]  # noqa: UP045  (docarray does not read `X | None`)


class Stored(BaseDoc):
    """Answer for an indexed text, same id: how many texts there are now."""

    indexed: int


class Match(BaseDoc):
    text: str
    score: float


class Found(BaseDoc):
    """Answer for a query, same id: the nearest texts, best first."""

    text: str
    matches: DocList[Match] = DocList[Match]()


class Indexer(Executor):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.texts: dict[str, str] = {}
        self.vectors: dict[str, np.ndarray[Any, Any]] = {}
        folder = Path(self.workspace or ".")
        folder.mkdir(parents=True, exist_ok=True)
        self.log = (folder / "index.jsonl").open("a+", encoding="utf-8")
        self._load()

    def _load(self) -> None:
        """A line that was torn by a crash belongs to a request that was never answered: it comes again."""
        self.log.seek(0)
        for line in self.log:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            self._keep(row["id"], row["text"], row["vector"])
        self.log.write("\n")

    def _keep(self, key: str, text: str, vector: Any) -> None:
        """By id: a request that is delivered twice changes nothing."""
        self.texts[key] = text
        self.vectors[key] = np.asarray(vector, dtype=np.float32)

    @requests(on="/index")
    def index(self, docs: DocList[Text], **kwargs: Any) -> DocList[Stored]:
        for doc in docs:
            key = str(doc.id)
            self._keep(key, doc.text, doc.embedding)
            self.log.write(json.dumps({"id": key, "text": doc.text, "vector": self.vectors[key].tolist()}) + "\n")
        self.log.flush()
        return DocList[Stored]([Stored(id=doc.id, indexed=len(self.texts)) for doc in docs])

    @requests(on="/search")
    def search(self, docs: DocList[Text], parameters: dict[str, Any] | None = None, **kwargs: Any) -> DocList[Found]:
        """The `parameters["limit"]` (default 3) nearest texts of each query."""
        limit = int((parameters or {}).get("limit", 3))
        return DocList[Found]([Found(id=doc.id, text=doc.text, matches=self._nearest(doc, limit)) for doc in docs])

    def _nearest(self, doc: Text, limit: int) -> DocList[Match]:
        if not self.vectors:
            return DocList[Match]()
        ids = list(self.vectors)
        scores = np.stack(list(self.vectors.values())) @ np.asarray(doc.embedding, dtype=np.float32)
        best = np.argsort(-scores, kind="stable")[:limit]
        return DocList[Match]([Match(id=ids[at], text=self.texts[ids[at]], score=float(scores[at])) for at in best])

    def close(self) -> None:
        self.log.close()
