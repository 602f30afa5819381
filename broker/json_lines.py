"""Lines of JSON as inputs of a job: what can be read runs, what cannot is told with its line number.

A line that is an object is one document, and so many of them make one request; a line that is a list is a request of its own. The text of
a document is passed on as it came. Empty lines are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from .envelope import JSON
from .errors import InvalidInput
from .job_records import Input

MAX_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Fault:
    """A line, or row, that is left out, and why. Counted from 1."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(slots=True)
class Faults:
    """How many lines were left out, and the first `MAX_KEPT` of them. `strict`: the first one is an error."""

    strict: bool = False
    count: int = 0
    first: list[Fault] = field(default_factory=list)

    def add(self, line: int, reason: str) -> None:
        """Raises `InvalidInput` when `strict`."""
        fault = Fault(line, reason)
        if self.strict:
            raise InvalidInput(f"{fault} (strict: nothing was accepted)")
        self.count += 1
        if len(self.first) < MAX_KEPT:
            self.first.append(fault)

    def check_any(self, inputs: int) -> None:
        """Raises `InvalidInput` when there are no `inputs` because all lines are broken."""
        if self.count and not inputs:
            raise InvalidInput(f"not one line can be read; {self.first[0]}")


class JsonLines:
    """`take` each line in turn, then `rest`."""

    def __init__(self, request_size: int, faults: Faults) -> None:
        """`request_size`: documents in a request; 0 or less = all in one."""
        self._size = request_size
        self._faults = faults
        self._number = 0
        self._waiting: list[bytes] = []

    def take(self, line: bytes) -> Iterator[Input]:
        """The requests that are whole with this line."""
        self._number += 1
        text = line.strip()
        if not text:
            return
        is_request = self._is_request(text)
        if is_request is None:
            return
        if not is_request:
            self._waiting.append(text)
            if len(self._waiting) == self._size:
                yield from self.rest()
            return
        yield from self.rest()
        yield Input(JSON, text)

    def rest(self) -> Iterator[Input]:
        if self._waiting:
            yield request_of(self._waiting)
            self._waiting = []

    def _is_request(self, text: bytes) -> bool | None:
        """Whether the line is a list of documents; None when it is neither that nor a document."""
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            self._faults.add(self._number, f"not JSON: {error}")
            return None
        if isinstance(value, dict):
            return False
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return True
        self._faults.add(self._number, "neither a JSON object nor a list of them")
        return None


def request_of(documents: list[bytes]) -> Input:
    """One request of documents that are JSON objects already."""
    return Input(JSON, b"[%b]" % b",".join(documents))
