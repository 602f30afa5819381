"""Executors that several scenarios run. Everything happens in the documents, so that a test sees it in the answer."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from docarray.typing import NdArray

from streamflow import Executor, dynamic_batching, requests


class Text(BaseDoc):
    text: str = ""


class Span(BaseDoc):
    """When and where a document was worked on."""

    number: int = 0
    began: float = 0.0  # Unix seconds
    ended: float = 0.0


class FooExec(Executor):
    @requests
    async def add_text(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        for doc in docs:
            doc.text = (doc.text or "") + "hello, world!"
        return docs


class BarExec(Executor):
    @requests
    async def add_text(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        for doc in docs:
            doc.text = (doc.text or "") + "goodbye!"
        return docs


class Counted(Executor):
    """Adds a document that says who it is and how many there were before."""

    def __init__(self, word: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.word = word

    @requests
    async def count(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        docs.append(TextDoc(text=f"{self.word} was here and got {len(docs)} document"))
        return docs


class Named(Executor):
    """Appends its own name."""

    @requests
    def name_it(self, docs: DocList[Text], **kwargs: Any) -> None:
        for doc in docs:
            doc.text += f"<{self.runtime_args.name}>"


class Slow(Executor):
    """Each request takes `seconds`; the documents say when."""

    def __init__(self, seconds: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seconds = seconds

    @requests
    def work(self, docs: DocList[Span], **kwargs: Any) -> None:
        began = time.time()
        time.sleep(self.seconds)
        for doc in docs:
            doc.began, doc.ended = began, time.time()


class Raising(Executor):
    @requests(on="/bare")
    def bare(self, **kwargs: Any) -> None:
        raise NotImplementedError

    @requests(on="/why")
    def why(self, **kwargs: Any) -> None:
        raise NotImplementedError("no time for it")

    @requests(on="/fine")
    def fine(self, docs: DocList[Span], **kwargs: Any) -> None: ...


class Row(BaseDoc):
    x: NdArray[128]  # type: ignore[valid-type]
    y: NdArray | None = None  # type: ignore[type-arg]
    calls: list[int] = []


class Linear(Executor):
    """A layer of 128 by 128 with fixed weights; says how many documents each call had."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weights = np.random.default_rng(1).random((128, 128))

    @requests
    def forward(self, docs: DocList[Row], **kwargs: Any) -> DocList[Row]:
        outputs = np.stack([np.asarray(doc.x) for doc in docs]) @ self.weights
        for doc, output in zip(docs, outputs, strict=True):
            doc.y, doc.calls = output, [*doc.calls, len(docs)]
        return docs


class Decorated(Linear):
    @dynamic_batching(preferred_batch_size=10, timeout=200)
    @requests
    def forward(self, docs: DocList[Row], **kwargs: Any) -> DocList[Row]:
        return super().forward(docs)
