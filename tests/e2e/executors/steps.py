"""Executors of the end-to-end tests. With `ledger` each writes down what it did, one line at a time, so that a checker can compare."""

from __future__ import annotations

import os
import random
import time
from typing import Any

from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from streamflow import Executor, requests


class Item(BaseDoc):
    text: str = ""
    number: int = 0
    tags: list[str] = []


class Shape(BaseDoc):
    """A document with all that a hostile client could lie about."""

    text: str = ""
    vector: NdArray[3] | None = None  # type: ignore[valid-type]  # docarray reads it as a shape
    free: NdArray | None = None  # type: ignore[type-arg]
    tags: dict[str, Any] = {}
    parts: DocList[Item] = DocList[Item]()


class Step(Executor):
    """Appends `mark` to each text, after `pause_s` and up to `spread_s` more seconds.

    Lines of the ledger: `start <pid>`, `run <pid> <attempt> <Unix s> <id>`.
    """

    def __init__(self, mark: str = "+", pause_s: float = 0.0, spread_s: float = 0.0, ledger: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mark = mark
        self.pause_s = pause_s
        self.spread_s = spread_s
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if ledger else -1
        self._write(f"start {os.getpid()}\n")

    @requests(on="/run")
    def run(self, docs: DocList[Item], context: Any = None, **kwargs: Any) -> DocList[Item]:
        self._write("".join(f"run {os.getpid()} {context.attempt} {time.time():.3f} {doc.id}\n" for doc in docs))
        if self.pause_s:
            time.sleep(self.pause_s + random.uniform(0.0, self.spread_s))
        for doc in docs:
            doc.text += self.mark
        return docs

    @requests(on="/shapes")
    def shapes(self, docs: DocList[Shape], **kwargs: Any) -> DocList[Shape]:
        for doc in docs:
            doc.text += self.mark
        return docs

    def _write(self, lines: str) -> None:
        if self._ledger >= 0:
            os.write(self._ledger, lines.encode())  # O_APPEND: lines of several processes do not mix


class Found(BaseDoc):
    pass


class Searched(Item):
    found: DocList[Found] = DocList[Found]()


class Shard(Step):
    """Each shard adds itself to `found`, so that a missing or doubled one is seen."""

    @requests(on="/run")
    def run(self, docs: DocList[Searched], context: Any = None, **kwargs: Any) -> DocList[Searched]:  # type: ignore[override]
        super().run(docs, context)
        for doc in docs:
            doc.found.append(Found(id=str(self.runtime_args.shard_id)))
        return docs


class Raising(Executor):
    """Cannot be made."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        raise RuntimeError("the weights are gone")


class Slow(Executor):
    """Takes `load_s` seconds to load."""

    def __init__(self, load_s: float = 5.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        time.sleep(load_s)
