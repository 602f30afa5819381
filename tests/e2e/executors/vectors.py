"""The stateful executor of the tests: vectors in the order in which they were written, and how often each id was."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from docarray import BaseDoc, DocList
from docarray.typing import NdArray

from streamflow import Executor, requests, write

DIM = 128


class Vector(BaseDoc):
    embedding: NdArray[DIM] | None = None  # type: ignore[valid-type]  # docarray reads it as a shape


class Name(BaseDoc):
    found: bool = True


class Summary(BaseDoc):
    """A replica's state in short; two hashes: of everything in its order, and of the ids alone, sorted."""

    pid: int
    count: int
    repeated: int
    state: str
    ids: str


def hash_of_ids(ids: list[str]) -> str:
    return sha256("\n".join(sorted(ids)).encode()).hexdigest()


class Vectors(Executor):
    """Writes its process id into `folder`, so that a test finds it."""

    def __init__(self, folder: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ids: Counter[str] = Counter()
        self.order: list[str] = []
        self.blocks: list[np.ndarray[Any, Any]] = []
        if folder:
            Path(folder, f"{os.getpid()}.pid").touch()

    @requests(on="/index")
    @write
    def index(self, docs: DocList[Vector], **_: Any) -> DocList[Name]:
        self._take([str(doc.id) for doc in docs], np.array([doc.embedding for doc in docs], np.float32))
        return DocList[Name]([Name(id=doc.id) for doc in docs])

    @write
    @requests(on="/fill")
    def fill(self, parameters: dict[str, Any], **_: Any) -> DocList[Name]:
        """`count` vectors that follow from `seed`."""
        count, seed = int(parameters["count"]), int(parameters["seed"])
        self._take([f"{seed}-{number}" for number in range(count)], np.random.default_rng(seed).random((count, DIM), np.float32))
        return DocList[Name]()

    @requests(on="/has")
    def has(self, docs: DocList[Name], **_: Any) -> DocList[Name]:
        return DocList[Name]([Name(id=doc.id, found=doc.id in self.ids) for doc in docs])

    @requests(on="/summary")
    def summary(self, **_: Any) -> DocList[Summary]:
        time.sleep(0.02)  # so that others of these go to other replicas
        state = sha256("\n".join(self.order).encode())
        for block in self.blocks:
            state.update(block.tobytes())
        repeated = sum(times > 1 for times in self.ids.values())
        ids = hash_of_ids(list(self.ids))
        return DocList[Summary]([Summary(pid=os.getpid(), count=len(self.order), repeated=repeated, state=state.hexdigest(), ids=ids)])

    def snapshot(self, snapshot_dir: str) -> None:
        folder = Path(snapshot_dir)
        folder.mkdir()
        (folder / "ids.json").write_text(json.dumps(self.order))
        with (folder / "vectors").open("wb") as file:
            for block in self.blocks:
                block.tofile(file)

    def restore(self, snapshot_dir: str) -> None:
        folder = Path(snapshot_dir)
        self.order = json.loads((folder / "ids.json").read_text())
        self.ids = Counter(self.order)
        self.blocks = [np.fromfile(folder / "vectors", np.float32).reshape(-1, DIM)]

    def _take(self, ids: list[str], vectors: np.ndarray[Any, Any]) -> None:
        self.ids.update(ids)
        self.order += ids
        self.blocks.append(vectors)
