"""The executor of the random flows: what it makes of a request can be worked out from the graph alone (`tests/chaos/graphs.py`)."""

from __future__ import annotations

import os
import time
from typing import Any

from docarray import BaseDoc, DocList

from streamflow import Executor, requests


class Found(BaseDoc):
    shard: str


class Item(BaseDoc):
    text: str = ""
    found: DocList[Found] = DocList[Found]()


class Marks(Executor):
    """Adds its name to every text, a document of its own if told to, and a mark per shard; takes `pause_s` seconds.

    Lines of the ledger, of shard -1 where there are no shards: `start <name> <shard> <pid>`, and `run` before and `done` after the work,
    `<name> <shard> <pid> <attempt> <id>` with the id of the first document.
    """

    def __init__(self, adds: bool = False, pause_s: float = 0.0, ledger: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.adds = adds
        self.pause_s = pause_s
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if ledger else -1
        self._write("start")

    @requests
    def mark(self, docs: DocList[Item], context: Any = None, **kwargs: Any) -> None:
        name, shard = self.runtime_args.name, self.runtime_args.shard_id
        request = docs[0].id if docs else "none"
        self._write("run", context.attempt, request)
        time.sleep(self.pause_s)
        for doc in docs:
            doc.text += f"<{name}"
            if shard >= 0:
                doc.found.append(Found(id=f"{name}.{shard}", shard=f"{name}.{shard}"))
        if self.adds:
            docs.append(Item(id=f"by-{name}", text=name))
        self._write("done", context.attempt, request)

    def _write(self, what: str, *more: object) -> None:
        if self._ledger >= 0:
            line = (what, self.runtime_args.name, self.runtime_args.shard_id, os.getpid(), *more)
            os.write(self._ledger, " ".join(map(str, line)).encode() + b"\n")  # O_APPEND: lines of several processes do not mix
