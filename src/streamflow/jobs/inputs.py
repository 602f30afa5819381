"""What `submit(inputs=...)` accepts, as bodies of stored requests, read no faster than they are stored.

Files are read as rows and stored as JSON, without a document class: the executor's own validates them. Documents are encoded as the
client's protocol wants them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Any

from docarray.base_doc.doc import BaseDocWithoutId

from streamflow.broker import codec
from streamflow.broker.envelope import EMPTY
from streamflow.broker.job_records import Input
from streamflow.broker.json_lines import Faults
from streamflow.broker.subjects import digest
from streamflow.client.inputs import Docs, InCaller, chunks, resolve

from .files import requests_in

_READ_AHEAD = 16  # requests of a file that are read at once, in the caller's thread


async def bodies(
    inputs: Any, request_size: int, content_type: str, key: str, faults: Faults, in_caller: InCaller | None
) -> AsyncGenerator[Input, None]:
    """Requests of at most `request_size` documents (all in one when <= 0): of a file named by a path or pattern, else of documents.

    With a `key` documents whose id was made by chance get one that is the same every time. Raises `BadArguments`.
    """
    if isinstance(inputs, str | Path):
        async for given in _from_file(requests_in(inputs, request_size, faults), in_caller):
            yield given
        return
    first = 0
    async with aclosing(chunks(resolve(inputs), request_size, in_caller)) as found:
        async for docs in found:
            yield _input(_named(docs, key, first) if key else docs, content_type)
            first += len(docs)


def _input(docs: Docs, content_type: str) -> Input:
    return Input(content_type, codec.encode(docs, content_type)) if docs else Input(EMPTY, b"")


def _named(docs: Docs, key: str, first: int) -> Docs:
    """Copies of documents that were not given an id, with one made of the key and their place."""
    return [doc if _has_own_id(doc) else doc.copy(update={"id": f"{digest(key)[:16]}-{at}"}) for at, doc in enumerate(docs, first)]


def _has_own_id(doc: BaseDocWithoutId) -> bool:
    return "id" not in doc.__fields__ or "id" in doc.__fields_set__


async def _from_file(requests: Iterator[Input], in_caller: InCaller | None) -> AsyncIterator[Input]:
    def some() -> list[Input]:
        return list(islice(requests, _READ_AHEAD))

    while several := await in_caller(some) if in_caller else some():
        for given in several:
            yield given
