"""Files as inputs of a job: lines of JSON, CSV, Parquet, or any files that a pattern names. What cannot be read is told, the rest runs.

Everything becomes lines of JSON, so that one place decides what a request is; documents without an id get the same one every time.
"""

from __future__ import annotations

import base64
import csv
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson

from streamflow.broker.job_records import Input
from streamflow.broker.json_lines import Faults, JsonLines
from streamflow.client.errors import BadArguments
from streamflow.client.readers import from_files

_PATTERN_SIGNS = "*?["
_PARQUET_ROWS = 1000


class Format(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    FILES = "files"


_ENDINGS = {".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".csv": Format.CSV, ".parquet": Format.PARQUET}


def requests_in(source: str | Path, request_size: int, faults: Faults, kind: Format | None = None) -> Iterator[Input]:
    """The requests in `source`: a file by its ending, a pattern such as `images/**/*.png` (a document for each file), "-" = lines of JSON
    from standard input. Raises `BadArguments` when it cannot be read, `InvalidInput` when not one line of it can."""
    kind = kind or _kind_of(str(source))
    lines = JsonLines(request_size, faults)
    inputs = 0
    for line in _READERS[kind](str(source), faults):
        for given in lines.take(line):
            inputs += 1
            yield given
    for given in lines.rest():
        inputs += 1
        yield given
    faults.check_any(inputs)


def _kind_of(source: str) -> Format:
    if source == "-":
        return Format.JSONL
    if any(sign in source for sign in _PATTERN_SIGNS):
        return Format.FILES
    found = _ENDINGS.get(Path(source).suffix.lower())
    if found is None:
        raise BadArguments(f"inputs {source!r}: name a file that ends in {', '.join(_ENDINGS)}, or a pattern such as 'texts/*.txt'")
    return found


def _json_lines(source: str, _faults: Faults) -> Iterator[bytes]:
    if source == "-":
        yield from sys.stdin.buffer
        return
    try:
        with open(source, "rb") as lines:
            yield from lines
    except OSError as error:
        raise BadArguments(f"inputs {source!r}: {error.strerror}") from error


def _csv(source: str, faults: Faults) -> Iterator[bytes]:
    """A line of JSON for each row; rows that have more or fewer cells than the head are left out."""
    try:
        with open(source, newline="", encoding="utf-8-sig") as lines:
            rows = csv.reader(lines)
            names = next(rows, [])
            for row in rows:
                if row and len(row) != len(names):
                    faults.add(rows.line_num, f"{len(row)} cells where the head has {len(names)}")
                elif row:
                    yield _line(dict(zip(names, row, strict=True)))
    except OSError as error:
        raise BadArguments(f"inputs {source!r}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadArguments(f"inputs {source!r}: not CSV: {error}") from error


def _parquet(source: str, _faults: Faults) -> Iterator[bytes]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise BadArguments(f"inputs {source!r}: Parquet files need pyarrow: pip install pyarrow") from None
    try:
        with parquet.ParquetFile(source) as table:
            for batch in table.iter_batches(_PARQUET_ROWS):
                yield from map(_line, batch.to_pylist())
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these classes
        raise BadArguments(f"inputs {source!r}: {error}") from error


def _files(source: str, _faults: Faults) -> Iterator[bytes]:
    """Path, type and content of each file."""
    for doc in from_files(source):
        row = {name: value for name, value in doc.__dict__.items() if name != "id"}
        yield _line(row)


_READERS: dict[Format, Callable[[str, Faults], Iterator[bytes]]] = {
    Format.JSONL: _json_lines,
    Format.CSV: _csv,
    Format.PARQUET: _parquet,
    Format.FILES: _files,
}


def _line(row: dict[str, Any]) -> bytes:
    return orjson.dumps(row, default=_plain)


def _plain(value: Any) -> Any:
    """What JSON does not know: bytes in base64, decimals and the like as text."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
