"""The executors under load. One file, served unchanged by streamflow and by jina: only the import source differs.

`LOAD_FRAMEWORK` (`streamflow` or `jina`) names the package that provides `Executor` and `requests`.
"""

import importlib
import os
import time
from typing import Any

from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from docarray.typing import NdArray

framework = importlib.import_module(os.environ.get("LOAD_FRAMEWORK", "streamflow"))
Executor, requests = framework.Executor, framework.requests

BATCH_CALL_S = 0.010


class Vector(BaseDoc):
    """One embedding, `(768,)` float32."""

    embedding: NdArray


class Echo(Executor):
    @requests(on="/echo")
    def echo(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return docs


class Append(Executor):
    def __init__(self, suffix: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.suffix = suffix

    @requests(on="/chain")
    def append(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        for doc in docs:
            doc.text += self.suffix
        return docs


class Double(Executor):
    """Touches every tensor, so that no server can pass the bytes through unseen."""

    @requests(on="/double")
    def double(self, docs: DocList[Vector], **kwargs: Any) -> DocList[Vector]:
        for doc in docs:
            doc.embedding = doc.embedding * 2
        return docs


class SlowBatch(Executor):
    """A model whose call takes 10 ms however many documents it gets."""

    @requests(on="/batch")
    def batch(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        time.sleep(BATCH_CALL_S)
        return docs
