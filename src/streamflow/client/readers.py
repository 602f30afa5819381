"""Documents out of arrays, tables and files, one at a time: generators for `inputs=`.

Without `doc_type` documents take the fields as they come (`AnyDoc`); a document class converts and checks them. `size` ends after that
many, `sampling_rate` keeps each with that probability. Files are opened for the first document and closed with the generator.
"""

from __future__ import annotations

import csv
import glob
import mimetypes
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from docarray.base_doc import AnyDoc
from docarray.base_doc.doc import BaseDocWithoutId
from pydantic import ValidationError

from .errors import BadArguments

Doc = BaseDocWithoutId
Source = str | Path | Iterable[str]  # a path, an open file, or lines
_TEXT_TYPES = ("application/json", "application/xml", "application/x-ndjson")


def from_ndarray(
    array: Any, *, axis: int = 0, field: str = "tensor", doc_type: type[Doc] = AnyDoc, size: int | None = None, sampling_rate: float = 1.0
) -> Iterator[Doc]:
    """One document for each slice of `array` along `axis`, in its `field`: `(4, 2)` gives four of shape `(2,)`."""
    rows = np.moveaxis(np.asarray(array), axis, 0)
    return _documents(({field: row} for row in rows), doc_type, "row", size, sampling_rate)


def from_csv(
    source: Source,
    field_resolver: Mapping[str, str] | None = None,
    *,
    dialect: str = "excel",
    doc_type: type[Doc] = AnyDoc,
    size: int | None = None,
    sampling_rate: float = 1.0,
) -> Iterator[Doc]:
    """One document for each line under the head line, fields named by that; `field_resolver` renames columns: `{"pic_url": "uri"}`."""

    def rows() -> Iterator[dict[str, Any]]:
        with _opened(source) as lines:
            for row in csv.DictReader(lines, dialect=dialect):
                yield {name: value for name, value in row.items() if name is not None and value is not None}

    return _documents((_renamed(row, field_resolver) for row in rows()), doc_type, "line", size, sampling_rate, first=2)


def from_ndjson(
    source: Source,
    field_resolver: Mapping[str, str] | None = None,
    *,
    doc_type: type[Doc] = AnyDoc,
    size: int | None = None,
    sampling_rate: float = 1.0,
) -> Iterator[Doc]:
    """One document for each line, a JSON object; `field_resolver` renames keys: `{"question_id": "id"}`. Empty lines are left out."""

    def rows() -> Iterator[dict[str, Any]]:
        with _opened(source) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _renamed(_object(line, number), field_resolver)

    return _documents(rows(), doc_type, "line", size, sampling_rate)


def from_lines(source: Source, *, doc_type: type[Doc] = AnyDoc, size: int | None = None, sampling_rate: float = 1.0) -> Iterator[Doc]:
    """One document for each line, in its `text`."""

    def rows() -> Iterator[dict[str, Any]]:
        with _opened(source) as lines:
            for line in lines:
                yield {"text": line.rstrip("\r\n")}

    return _documents(rows(), doc_type, "line", size, sampling_rate)


def from_files(
    patterns: str | Path | Iterable[str | Path],
    *,
    recursive: bool = True,
    content: bool = True,
    doc_type: type[Doc] = AnyDoc,
    size: int | None = None,
    sampling_rate: float = 1.0,
) -> Iterator[Doc]:
    """One document for each file that matches a pattern (`["images/**/*.png"]`), by name: its path in `uri`, its type in `mime_type`.

    With `content` the file itself too: in `text` when it is one by its type, else in `blob`. Raises `BadArguments` when nothing matches.
    """
    several = [patterns] if isinstance(patterns, (str, Path)) else list(patterns)
    found = sorted({path for pattern in several for path in glob.glob(str(pattern), recursive=recursive) if Path(path).is_file()})
    if not found:
        raise BadArguments(f"no file matches {', '.join(map(str, several))}")
    return _documents((_file(path, content) for path in found), doc_type, "file", size, sampling_rate)


def from_texts(texts: Iterable[str], field: str = "text", doc_type: type[Doc] = AnyDoc) -> Iterator[Doc]:
    """One document for each string, in its `field`."""
    return _documents(({field: text} for text in texts), doc_type, "text", None, 1.0)


def _documents(
    rows: Iterator[dict[str, Any]], doc_type: type[Doc], unit: str, size: int | None, sampling_rate: float, first: int = 1
) -> Iterator[Doc]:
    chosen = ((number, row) for number, row in enumerate(rows, first) if sampling_rate >= 1 or random.random() < sampling_rate)
    for number, row in islice(chosen, size):
        try:
            yield doc_type(**row)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise BadArguments(f"{unit} {number}: {where}: {fault['msg']}") from error


def _renamed(row: dict[str, Any], names: Mapping[str, str] | None) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in row.items()} if names else row


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadArguments(f"line {number}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise BadArguments(f"line {number}: expected a JSON object, got {type(row).__name__}")
    return row


def _file(path: str, content: bool) -> dict[str, Any]:
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    row: dict[str, Any] = {"uri": path, "mime_type": kind}
    if content and (kind.startswith("text/") or kind in _TEXT_TYPES):
        row["text"] = Path(path).read_text("utf-8", "replace")
    elif content:
        row["blob"] = Path(path).read_bytes()
    return row


@contextmanager
def _opened(source: Source) -> Iterator[Iterable[str]]:
    if not isinstance(source, (str, Path)):
        yield source
        return
    with open(source, newline="", encoding="utf-8-sig") as lines:
        yield lines
