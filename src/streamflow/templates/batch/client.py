"""Runs the batch: `python client.py [inputs.jsonl] [results.jsonl] [grpc://127.0.0.1:54321]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docarray import DocList
from executor1.executor import Counts, Text

from streamflow import Client

PER_REQUEST = 2  # inputs that travel together and fail together


class Batch:
    """Inputs on their way: read when they are needed, forgotten when their result is written."""

    def __init__(self, inputs: Path, results: Path) -> None:
        self.inputs = inputs
        self.results = results
        self.open: dict[str, Text] = {}

    def read(self) -> Iterator[Text]:
        with self.inputs.open(encoding="utf-8") as lines:
            for line in lines:
                doc = Text.model_validate_json(line)
                self.open[str(doc.id)] = doc
                yield doc

    def keep(self, response: Any) -> None:
        with self.results.open("a", encoding="utf-8") as file:
            for doc in response.docs:
                del self.open[doc.id]
                file.write(doc.model_dump_json() + "\n")

    def complain(self, response: Any) -> None:
        print(response.header.status.description, file=sys.stderr)


def main(inputs: str = "inputs.jsonl", results: str = "results.jsonl", host: str = "grpc://127.0.0.1:54321") -> int:
    """How many inputs have no result; they are in failed.jsonl beside the results."""
    batch = Batch(Path(inputs), Path(results))
    batch.results.write_text("", "utf-8")
    Client(host=host).post(
        "/count",
        batch.read(),
        request_size=PER_REQUEST,
        return_type=DocList[Counts],
        on_done=batch.keep,
        on_error=batch.complain,
        continue_on_error=True,
    )
    failed = batch.results.with_name("failed.jsonl")
    failed.write_text("".join(doc.model_dump_json() + "\n" for doc in batch.open.values()), "utf-8")
    return len(batch.open)


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:4]) else 0)
