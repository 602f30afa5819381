"""Documents as bytes and back, in every form that travels: `encode`, `decode`, `transcode`, `split`.

| content type | body |
|---|---|
| JSON | request: the client's object `{"data": .., "parameters": ..}` or a bare list of documents; answer: the list of documents |
| PROTOBUF | jina's `DataRequestProto.DataContentProto` |
| COLUMNS | `columns.py`: what workers speak among themselves |
| EMPTY | nothing: no documents |

What cannot be read raises `InvalidInput`, whatever the bytes; it names document and field where there is one, `data[3].price: ..`.
Importing this package loads neither docarray nor numpy: the gateway shares the broker package and never opens a document.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..envelope import COLUMNS, EMPTY, JSON, PROTOBUF
from ..errors import InvalidInput
from ..limits import MAX_BODY_BYTES, MAX_DEPTH, MAX_DIMS, MAX_DOCUMENTS, check_size

if TYPE_CHECKING:
    from docarray.base_doc.doc import BaseDocWithoutId

__all__ = ["MAX_BODY_BYTES", "MAX_DEPTH", "MAX_DIMS", "MAX_DOCUMENTS", "Decoded", "decode", "encode", "split", "transcode"]

_CONTENT_TYPES = frozenset((COLUMNS, EMPTY, JSON, PROTOBUF))


class Decoded(NamedTuple):
    """What a body held."""

    docs: Any  # DocList[doc_type] of n
    parameters: dict[str, Any] | None = None  # only a JSON request carries them
    unknown: dict[str, list[Any]] | None = None  # columns of n values that the class has no field for, None = there were none


def encode(docs: Sequence[Any], content_type: str, *, extra_columns: dict[str, list[Any]] | None = None) -> bytes:
    """The body for `docs` (DocList, DocVec or any sequence of documents), in order.

    `extra_columns` (`Decoded.unknown` of the request) are put back beside the documents' own fields, by position; they are left out when
    the number of documents has changed. Raises `StreamflowError` naming document and field for a value that the form cannot hold.
    """
    extra = extra_columns if extra_columns and all(len(column) == len(docs) for column in extra_columns.values()) else None
    made: bytes = _forms().encode(docs, _known(content_type), extra)
    return made


def decode(
    body: bytes | memoryview,
    content_type: str,
    doc_type: type[BaseDocWithoutId] | None = None,
    *,
    trusted: bool = False,
    ids: str = "",
) -> Decoded:
    """The documents in `body` as `DocList[doc_type]`; without a class as LegacyDocument, which is what an endpoint without annotation
    takes.

    `trusted` says that the body was written by a worker of the flow. Then COLUMNS of an equal class are taken without validation.
    Documents of a JSON body that came without an id get one made of `ids` and their position: two executors that read the same body, or one
    that reads it again, then mean the same documents. Arrays are writable and owned by the documents. Raises `InvalidInput`.
    """
    check_size(body)
    return Decoded(*_forms().decode(body, _known(content_type), doc_type, trusted, ids))


def transcode(body: bytes | memoryview, content_type: str, accept: str) -> bytes:
    """The documents in `body` as an answer in the form `accept`, with no class in between: every field stays. Raises `InvalidInput`."""
    check_size(body)
    if _known(content_type) == _known(accept) != JSON:
        return bytes(body)
    made: bytes = _forms().transcode(body, content_type, accept)
    return made


def split(body: bytes | memoryview, content_type: str) -> list[bytes]:
    """One body for each document of an answer, in the same form and order; one document is `body` as it is. Raises `InvalidInput`."""
    check_size(body)
    bodies: list[bytes] = _forms().split(body, _known(content_type))
    return bodies


@functools.cache
def _forms() -> Any:
    from . import forms  # loads docarray and numpy: 0.3 s, only in processes that open documents

    return forms


def _known(content_type: str) -> str:
    if content_type not in _CONTENT_TYPES:
        raise InvalidInput(f"content type {content_type[:80]!r} is not known")
    return content_type
