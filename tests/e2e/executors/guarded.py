"""An executor that does all that needs rights at the broker: answers, large bodies, streams, another attempt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from docarray import BaseDoc, DocList

from streamflow import Executor, requests


class Note(BaseDoc):
    text: str = ""


class Guarded(Executor):
    def __init__(self, mark: str = "+", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mark = mark

    @requests(on="/run")
    def run(self, docs: DocList[Note], parameters: dict[str, Any], context: Any = None, **kwargs: Any) -> DocList[Note]:
        if parameters.get("fail_first") == self.mark and context.attempt == 1:
            raise ValueError("not yet")
        for doc in docs:
            doc.text = doc.text * int(parameters.get("times", 1)) + self.mark
        return docs

    @requests(on="/tell")
    async def tell(self, doc: Note, parameters: dict[str, Any], **kwargs: Any) -> AsyncIterator[Note]:
        for number in range(int(parameters.get("n", 3))):
            yield Note(text=f"{doc.text}{number}")
