"""Ends in the ways in which user code ends, by what the text asks for, until a file is there; one line in the ledger for each run."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from pathlib import Path
from typing import Any

from docarray import BaseDoc, DocList

from streamflow import Executor, requests


class Note(BaseDoc):
    text: str = ""


class Poisons(Executor):
    def __init__(self, ledger: str, cure: str, pause_s: float = 0.0, room_bytes: int = 4 << 30, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._cure = Path(cure)
        self._pause_s = pause_s
        resource.setrlimit(resource.RLIMIT_AS, (room_bytes, room_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    @requests(on="/run")
    def run(self, docs: DocList[Note], context: Any = None, **kwargs: Any) -> DocList[Note]:
        for doc in docs:
            os.write(self._ledger, f"run {os.getpid()} {context.attempt} {time.time():.3f} {doc.id}\n".encode())
            if doc.text and not self._cure.exists():
                getattr(self, f"_{doc.text}")()
            time.sleep(self._pause_s)
            doc.text += "+"
        return docs

    def _raise(self) -> None:
        raise ValueError("poison")

    def _exit(self) -> None:
        os._exit(9)

    def _segfault(self) -> None:
        ctypes.string_at(0)

    def _memory(self) -> None:
        bytearray(1 << 42)

    def _loop(self) -> None:
        while True:
            pass
