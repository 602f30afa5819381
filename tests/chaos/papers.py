"""Executors with documents of many field types, to see what the OpenAPI document says of them and whether it is true."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import AnyUrl, NdArray
from pydantic import BaseModel, Field

from streamflow import Executor, requests


class Author(BaseDoc):
    name: str
    weight: float = 1.0
    tags: list[str] = []


class Paper(BaseDoc):
    title: str = Field(min_length=1, max_length=200)
    kind: Literal["book", "article"] = "article"
    year: int | None = None
    is_open: bool = False
    links: dict[str, str] = {}
    page: AnyUrl | None = None
    vector: NdArray[3]  # type: ignore[type-arg]
    free: NdArray | None = None
    best: Author | None = None
    authors: DocList[Author] = DocList[Author]()


class Question(BaseDoc):
    text: str
    number: int = Field(1, ge=0, le=20)


class Found(BaseDoc):
    text: str
    score: float
    papers: DocList[Paper]


class Wanted(BaseModel):
    top_k: int = Field(2, ge=1, le=10)
    prefix: str = ""


class Papers(Executor):
    @requests(on="/index")
    def index(self, docs: DocList[Paper], **kwargs: Any) -> DocList[Paper]:
        for doc in docs:
            doc.free = np.outer(doc.vector, doc.vector)
        return docs

    @requests(on="/search")
    def search(self, docs: DocList[Question], parameters: Wanted, **kwargs: Any) -> DocList[Found]:
        paper = Paper(title="one", vector=np.ones(3), authors=DocList[Author]([Author(name="somebody")]))
        papers = DocList[Paper]([paper] * parameters.top_k)
        return DocList[Found]([Found(text=parameters.prefix + doc.text, score=0.5, papers=papers) for doc in docs])

    @requests(on="/words")
    def words(self, doc: Question, parameters: Wanted, **kwargs: Any) -> Iterator[Found]:
        for at in range(doc.number):
            yield Found(text=f"{parameters.prefix}{doc.text}{at}", score=float(at), papers=DocList[Paper]())

    @requests(on="/where")
    async def where(self, docs: DocList[Question], **kwargs: Any) -> dict[str, int]:
        return {"pid": os.getpid()}

    @requests(on="/fails")
    def fail(self, docs: DocList[Question], **kwargs: Any) -> DocList[Question]:
        raise KeyError("the executor's own")
