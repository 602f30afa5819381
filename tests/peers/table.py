"""What jina's client and ours get from jina's gateway and ours, call by call.

`python -m tests.peers.table > docs/compatibility.md` makes the page; needs jina 3.34.0 in `.peers/jina` (`make load-peers`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from .differences import CLIENT, DIFFERENCES, SERVER, UNSTEADY, UNSTEADY_WAY
from .sides import JINA, OURS, PORTS, Answers, asked, free_ports, served

_SHOWN = 160
NOT_SERVED = "not served"  # what `calls.py` says of a way that jina itself does not offer
_HEAD = """# Compatibility with jina 3.34.0

Made by `python -m tests.peers.table > docs/compatibility.md`; `tests/peers/test_table.py` checks it. One set of calls is made by the
unmodified `Client` of jina 3.34.0 and by ours, to a gateway of jina 3.34.0 and to ours, with the same executors, Flows and Deployment
(`tests/peers/calls.py`, `tests/peers/flows.py`: the only difference is the name of the imported package). Ids and times are left out.

**=** the same as in the first column. An exception is shown by its class and the built-in class that it is a kind of; it is the same when
the latter is. Numbers in brackets lead to the reasons below. *or nothing*: the original's client forgets an error over WebSocket when the
socket closes before it has raised, by chance.
"""


@dataclass(frozen=True)
class Row:
    """One call on one way. `differs` names the columns whose answer is not the original's."""

    call: str
    way: str
    original: Any
    others: dict[str, Any]
    differs: frozenset[str] = field(default_factory=frozenset)


def measure() -> dict[tuple[str, str], Answers]:
    """(client, server) to answers."""
    ports = {JINA: free_ports(PORTS)}
    with served(JINA, ports[JINA]):
        ports[OURS] = free_ports(PORTS)
        with served(OURS, ports[OURS]):
            pairs = [(JINA, JINA), (JINA, OURS), (OURS, JINA)]
            return {(client, server): asked(client, ports[server]) for client, server in pairs}


def rows(found: dict[tuple[str, str], Answers]) -> Iterator[Row]:
    """In the order of the calls, all ways of one call together."""
    original, columns = found[JINA, JINA], {SERVER: found[JINA, OURS], CLIENT: found[OURS, JINA]}
    for call in next(iter(original.values())):
        for way in (way for way in original if original[way][call] != NOT_SERVED):
            expected = _steady(original[way][call], call, way)
            others = {column: answers[way][call] for column, answers in columns.items()}
            differs = {column for column, answer in others.items() if not _same(expected, answer)}
            yield Row(call, way, expected, others, frozenset(differs))


def unexplained(found: dict[tuple[str, str], Answers]) -> list[str]:
    """Differences without a reason, and reasons without a difference."""
    used, faults = set(), []
    for row in rows(found):
        for column in sorted(row.differs):
            number = _reason(column, row)
            used.add(number)
            if number is None:
                shown = f"{_shown(row.original)} became {_shown(row.others[column])}"
                faults.append(f"{row.call} / {row.way} / {column}: {shown}")
    idle = [difference.reason for number, difference in enumerate(DIFFERENCES) if number not in used]
    return faults + [f"no call shows: {reason}" for reason in idle]


def page(found: dict[tuple[str, str], Answers]) -> str:
    columns = ("call", "protocol", "jina client, jina gateway", f"jina client, {SERVER}", f"{CLIENT}, jina gateway")
    lines = [_HEAD, f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for _, same_call in groupby(rows(found), lambda row: row.call):
        cells: dict[tuple[str, ...], list[str]] = {}
        for row in same_call:
            cells.setdefault((row.call, _shown(row.original), *(_cell(column, row) for column in (SERVER, CLIENT))), []).append(row.way)
        for (call, *answers), ways in cells.items():
            lines.append(f"| {call} | {', '.join(ways) if len(cells) > 1 else 'all'} | {' | '.join(answers)} |")
    lines += ["", "## Reasons", "", *(f"{number}. {difference.reason}" for number, difference in enumerate(DIFFERENCES, 1))]
    return "\n".join(lines) + "\n"


def _cell(column: str, row: Row) -> str:
    if column not in row.differs:
        return "="
    number = _reason(column, row)
    return f"{_shown(row.others[column])} [{'?' if number is None else number + 1}]"


def _reason(column: str, row: Row) -> int | None:
    return next((number for number, difference in enumerate(DIFFERENCES) if difference.covers(column, row.call, row.way)), None)


def _steady(answer: Any, call: str, way: str) -> Any:
    """`answer`, or both of its outcomes when chance decides."""
    if call not in UNSTEADY or way != UNSTEADY_WAY:
        return answer
    return {"raises": "BadClientCallback" if "callback" in call else "BadServer", "which is a": "Exception", "or nothing": True}


def _same(expected: Any, answer: Any) -> bool:
    if isinstance(expected, dict) and expected.get("or nothing") and answer in (None, []):
        return True
    return bool(_comparable(expected) == _comparable(answer))


def _comparable(answer: Any) -> Any:
    """An exception by the built-in class that it is a kind of, anything else as it is."""
    if isinstance(answer, dict) and "which is a" in answer:
        return answer["which is a"]
    return [_comparable(item) for item in answer] if isinstance(answer, list) else answer


def _shown(answer: Any) -> str:
    if isinstance(answer, dict) and "which is a" in answer:
        kind = "" if answer["raises"] == answer["which is a"] else f" ({answer['which is a']})"
        return f"raises {answer['raises']}{kind}{', or nothing' if 'or nothing' in answer else ''}"
    if isinstance(answer, list) and answer and isinstance(answer[-1], dict) and "which is a" in answer[-1]:
        return f"`{json.dumps(answer[:-1])}`, {_shown(answer[-1])}"
    text = json.dumps(answer, ensure_ascii=False)
    return f"`{text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'}`".replace("|", "\\|")


if __name__ == "__main__":
    print(page(measure()), end="")
