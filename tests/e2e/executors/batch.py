"""An executor for jobs: upper case, and a document that it cannot take until it is told to."""

from __future__ import annotations

import os
import time
from typing import Any

from docarray import DocList
from docarray.documents import TextDoc

from streamflow import Executor, requests


class Batch(Executor):
    """Refuses texts that start with `refuses`. A line "<pid> <ids>" for each request goes to `ledger`; each takes `pause_s` seconds."""

    def __init__(self, refuses: str = "", ledger: str = "", pause_s: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.refuses = refuses
        self.pause_s = pause_s
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if ledger else -1

    @requests(on="/upper")
    def upper(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        if self._ledger >= 0:
            os.write(self._ledger, f"{os.getpid()} {' '.join(str(doc.id) for doc in docs)}\n".encode())
        if self.pause_s:
            time.sleep(self.pause_s)
        for doc in docs:
            if self.refuses and str(doc.text).startswith(self.refuses):
                raise ValueError(f"cannot read {doc.text}")
            doc.text = str(doc.text).upper()
        return docs
