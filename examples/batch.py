"""A batch from a file to a file: `python examples/batch.py [notes.jsonl] [counts.jsonl] [http://127.0.0.1:8080]`.

Notes are read while the client sends them and results are written as they come, so the files may be larger than memory. A request that
fails costs its own notes only. Without an input file 10,000 notes are made up.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from client import Counted, Note
from docarray import DocList

from streamflow import Client

PER_REQUEST = 100
MADE_UP = 10_000


def notes(file: Path | None) -> Iterator[Note]:
    """One note a line: `{"id": "n1", "text": "..."}`."""
    if file is None:
        yield from (Note(id=f"note-{at}", text=f"The queue keeps note {at}; the note stays.") for at in range(MADE_UP))
        return
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield Note(**json.loads(line))


def main(source: str = "", target: str = "counts.jsonl", host: str = "http://127.0.0.1:8080") -> int:
    """Number of requests that failed."""
    failures: list[str] = []
    with Path(target).open("w", encoding="utf-8") as results, Client(host=host) as client:

        def keep(response: Any) -> None:
            results.writelines(json.dumps({"id": doc.id, "words": doc.words, "top": doc.top}) + "\n" for doc in response.docs)

        client.post(
            "/count",
            notes(Path(source) if source else None),
            request_size=PER_REQUEST,
            return_type=DocList[Counted],
            on_done=keep,
            on_error=lambda response: failures.append(response.header.status.description),
            continue_on_error=True,
            show_progress=True,
        )
    for failure in failures:
        print(failure, file=sys.stderr)
    return len(failures)


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:4]) else 0)
