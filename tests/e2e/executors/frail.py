"""Fails until a file is there: the executor before and after its repair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docarray import BaseDoc, DocList

from streamflow import Executor, requests


class Note(BaseDoc):
    text: str = ""


class Frail(Executor):
    def __init__(self, switch: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._switch = Path(switch)

    @requests(on="/frail")
    def run(self, docs: DocList[Note], **kwargs: Any) -> DocList[Note]:
        if not self._switch.exists():
            raise ValueError("not yet")
        for doc in docs:
            doc.text += "!"
        return docs
