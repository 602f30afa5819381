"""An executor: a class whose methods work on documents. State goes into `__init__`; it is kept from request to request."""

from __future__ import annotations

from typing import Any

from docarray import BaseDoc, DocList

from streamflow import Executor, requests


class Message(BaseDoc):
    text: str = ""


class MyExecutor(Executor):
    """Greets the first document and says goodbye to the second."""

    @requests
    def foo(self, docs: DocList[Message], **kwargs: Any) -> DocList[Message]:
        """Every endpoint that has no method of its own."""
        for doc, text in zip(docs, ("hello, world!", "goodbye, world!"), strict=False):
            doc.text = text
        return docs
