"""What is served, as data: each app is a list of executors that every target system builds in its own way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class App:
    """`executors` holds the entries of a flow's YAML in Jina's form; `suffix` is what the app appends to a text."""

    name: str
    endpoint: str
    executors: tuple[Mapping[str, Any], ...]
    suffix: str = ""

    def expected(self, text: str) -> str:
        return text + self.suffix


CHAIN = ("-one", "-two", "-three")

ECHO = App("echo", "echo", ({"name": "echo", "uses": "Echo"},))
CHAIN3 = App(
    "chain3",
    "chain",
    tuple({"name": suffix[1:], "uses": "Append", "uses_with": {"suffix": suffix}} for suffix in CHAIN),
    suffix="".join(CHAIN),
)
TENSORS = App("tensors", "double", ({"name": "double", "uses": "Double"},))
SHARDS3 = App("shards3", "echo", ({"name": "echo", "uses": "Echo", "shards": 3, "polling": "ALL"},))
BATCHING = App(
    "batching",
    "batch",
    ({"name": "batch", "uses": "SlowBatch", "uses_dynamic_batching": {"/batch": {"preferred_batch_size": 32, "timeout": 5}}},),
)
