"""What `post(inputs=...)` accepts, turned into chunks of documents, read no further ahead than asked."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Any

from docarray import DocList, DocVec
from docarray.base_doc.doc import BaseDocWithoutId

from .errors import BadArguments

Docs = list[BaseDocWithoutId]
# Runs a function in the thread that called post(); None where that is the event loop's own thread.
InCaller = Callable[..., Awaitable[Any]]


def resolve(inputs: Any) -> Any:
    """`inputs`, called if it is a function; None for an empty list, which is sent as one request without documents (Jina does so)."""
    made = inputs() if callable(inputs) and not isinstance(inputs, (BaseDocWithoutId, type)) else inputs
    return None if isinstance(made, (list, tuple, DocList, DocVec)) and not len(made) else made


def known_length(inputs: Any) -> int | None:
    """Number of documents in resolved `inputs`, None when only reading them would tell."""
    if inputs is None:
        return 0
    if isinstance(inputs, BaseDocWithoutId):
        return 1
    return len(inputs) if hasattr(inputs, "__len__") else None


async def chunks(inputs: Any, size: int, in_caller: InCaller | None = None) -> AsyncGenerator[Docs, None]:
    """Lists of at most `size` documents (all in one when `size` <= 0); one empty list for `None`.

    Generators are pulled one chunk at a time, by `in_caller` when given, so that a caller's generator runs in the caller's thread.
    Raises `BadArguments` for anything that is not a document.
    """
    if inputs is None:
        yield []
    elif isinstance(inputs, BaseDocWithoutId):
        yield [inputs]
    elif isinstance(inputs, (list, tuple, DocList, DocVec)):
        for chunk in _slices(inputs, size):
            yield chunk
    elif isinstance(inputs, AsyncIterator) or hasattr(inputs, "__aiter__"):
        async for chunk in _pull_async(inputs.__aiter__(), size):
            yield chunk
    else:
        async for chunk in _pull(_iterator(inputs), size, in_caller):
            yield chunk


def _slices(docs: Any, size: int) -> Iterator[Docs]:
    step = size if size > 0 else max(len(docs), 1)
    # A slice of a DocList would validate each document again, 2.5 us apiece.
    cut = list.__getitem__ if isinstance(docs, list) else type(docs).__getitem__
    for start in range(0, len(docs), step):
        yield _checked(list(cut(docs, slice(start, start + step))))


async def _pull(iterator: Iterator[Any], size: int, in_caller: InCaller | None) -> AsyncGenerator[Docs, None]:
    count = size if size > 0 else None
    while chunk := await in_caller(_take, iterator, count) if in_caller else _take(iterator, count):
        yield _checked(chunk)


async def _pull_async(source: AsyncIterator[Any], size: int) -> AsyncGenerator[Docs, None]:
    chunk: list[Any] = []
    async for doc in source:
        chunk.append(doc)
        if len(chunk) == size:
            yield _checked(chunk)
            chunk = []
    if chunk:
        yield _checked(chunk)


def _take(iterator: Iterator[Any], count: int | None) -> list[Any]:
    return list(islice(iterator, count))


def _iterator(inputs: Any) -> Iterator[Any]:
    if inspect.iscoroutine(inputs):
        inputs.close()
        raise BadArguments("inputs: a coroutine; give the async generator function itself")
    if isinstance(inputs, (str, bytes, dict)) or not hasattr(inputs, "__iter__"):
        raise BadArguments(f"inputs: expected documents, got {type(inputs).__name__}")
    return iter(inputs)


def _checked(docs: list[Any]) -> Docs:
    for doc in docs:
        if not isinstance(doc, BaseDocWithoutId):
            raise BadArguments(f"inputs: expected documents, got {type(doc).__name__} ({str(doc)[:60]!r})")
    return docs
