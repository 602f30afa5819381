"""Parts of one request put together: the reduce of a join or of an ALL-polled executor's shards.

Works on rows, without any document class. The result depends on the order of `parts` (branches as in `needs`, shards by number), never
on the order in which they arrived. The same id means the same document, and its copies are merged field by field as docarray's
`BaseDoc.update` does: a later value that is not None wins, dicts and sets are united, document lists are merged by id. Plain lists are
chained unless they are equal, since branches that left a list alone would double it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgpack

from ..envelope import COLUMNS, MATRIX
from ..errors import InvalidInput
from .forms import dump_rows, load_rows
from .values import Row, Rows


class Part(NamedTuple):
    """One branch or shard: its name and its documents in any form."""

    name: str
    content_type: str
    body: bytes | memoryview


def merge(parts: Sequence[Part], accept: str = COLUMNS) -> bytes:
    """All documents of `parts` as one list, in the form `accept`; documents with equal ids as one, at the first one's place."""
    merged: bytes = dump_rows(merged_rows(load_rows(part.body, part.content_type) for part in parts), accept)
    return merged


def merged_rows(lists: Iterable[list[Any]]) -> list[Any]:
    """`lists` of rows as one."""
    merged: list[Any] = []
    places: dict[Any, int] = {}
    for rows in lists:
        for row in rows:
            key = row.get("id")
            if key is not None and key in places:
                _update(merged[places[key]], row)
                continue
            if key is not None:
                places[key] = len(merged)
            merged.append(row)
    return merged


def _update(row: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in other.items():
        if value is not None and name != "id":
            row[name] = _joined(row.get(name), value)


def _joined(mine: Any, theirs: Any) -> Any:
    if _are_documents(mine) and _are_documents(theirs) and (mine or theirs):
        return Rows(merged_rows((mine, theirs)))
    if isinstance(mine, dict) and isinstance(theirs, dict):
        if isinstance(mine, Row):
            _update(mine, theirs)
            return mine
        return {**mine, **theirs}
    if isinstance(mine, set | frozenset) and isinstance(theirs, set | frozenset):
        return mine | theirs
    if isinstance(mine, list) and isinstance(theirs, list):
        return mine if _same(mine, theirs) else [*mine, *theirs]
    return theirs


def _are_documents(value: Any) -> bool:
    """A document list: typed as one, or as JSON shows it; an empty list may be one."""
    if isinstance(value, Rows):
        return True
    return isinstance(value, list) and all(isinstance(item, dict) and "id" in item for item in value)


def _same(mine: list[Any], theirs: list[Any]) -> bool:
    try:
        return bool(mine == theirs)
    except ValueError:  # arrays inside: their comparison is no truth value
        return False


def stack(parts: Sequence[Part]) -> bytes:
    """`parts` side by side, unmerged (`no_reduce`): a body of content type MATRIX."""
    return bytes(msgpack.packb([[part.name, part.content_type, bytes(part.body)] for part in parts], use_bin_type=True))


def unstack(body: bytes | memoryview) -> list[Part]:
    """What `stack` made. Raises `InvalidInput`."""
    try:
        return [Part(str(name), str(content_type), bytes(part)) for name, content_type, part in msgpack.unpackb(body, raw=False)]
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise InvalidInput(f"body is not readable as {MATRIX}: {error}") from error
