"""Executors that return or raise what nobody expects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
from docarray import DocList

from streamflow import Executor, requests
from tests.e2e.executors.steps import Item


class Panic(BaseException):
    """As extension modules written in Rust raise it (pyo3's PanicException): no `Exception`."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def _raise(error: BaseException) -> Any:
    raise error


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _endless() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


KINDS: dict[str, Callable[[], Any]] = {
    "a large integer": lambda: {"a": 2**70},
    "an object": lambda: {"a": object()},
    "a set": lambda: {"a": {1, 2}},
    "arrays": lambda: {"a": np.arange(3), "b": np.float32(1.5)},
    "numbers as keys": lambda: {1: 2, None: 4},
    "tuples as keys": lambda: {(1, 2): 3},
    "300 KB of results": lambda: {"a": "y" * 300_000},
    "2 MB of results": lambda: {"a": "y" * 2_000_000},
    "results in themselves": _endless,
    "results 300 deep": lambda: {"a": _nested(300)},
    "results 2000 deep": lambda: {"a": _nested(2000)},
    "half a surrogate pair": lambda: {"a": "\ud800"},
    "no documents": lambda: [1, 2],
    "a generator": lambda: iter(()),
    "an exception without text": lambda: _raise(Unprintable()),
    "an exception of 3 MB": lambda: _raise(ValueError("y" * 3_000_000)),
    "MemoryError": lambda: _raise(MemoryError("none left")),
    "StopIteration": lambda: _raise(StopIteration()),
    "SystemExit": lambda: _raise(SystemExit(3)),
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "CancelledError": lambda: _raise(asyncio.CancelledError()),
    "a panic": lambda: _raise(Panic("index out of bounds")),
}


class Strange(Executor):
    """`parameters.kind` says what it does; without one it gives the documents back."""

    @requests(on="/sync")
    def sync(self, docs: DocList[Item], parameters: dict[str, Any], **kwargs: Any) -> DocList[Item] | dict[str, Any] | None:
        return KINDS[parameters["kind"]]() if "kind" in parameters else docs

    @requests(on="/async")
    async def asynchronous(self, docs: DocList[Item], parameters: dict[str, Any], **kwargs: Any) -> DocList[Item] | dict[str, Any] | None:
        return KINDS[parameters["kind"]]() if "kind" in parameters else docs
