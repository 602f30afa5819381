"""What somebody must write differently: where, what, and what instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from streamflow.broker.errors import FlowError

_PLACED = re.compile(r"(.+?):(\d+): (.+)", re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One line of the report. A note is worth knowing, but the file works as it is."""

    file: str
    line: int  # from 1
    text: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {'note: ' if self.is_note else ''}{self.text}"


def changes_of(error: FlowError, file: str) -> Iterator[Change]:
    """The problems that reading `file` met, one for each line of the error."""
    for problem in str(error).splitlines():
        placed = _PLACED.fullmatch(problem)
        yield Change(placed[1], int(placed[2]), placed[3]) if placed else Change(file, 1, problem.removeprefix(f"{file}: "))
