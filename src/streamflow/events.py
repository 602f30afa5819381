"""What a supervisor says about a local flow: to the banner in the same process, or as JSON lines to the script that holds `with Flow()`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from streamflow.broker.errors import Code, FlowError, RuntimeFailToStart


class Kind(StrEnum):
    BROKER = "broker"  # facts: url, store (None = external), embedded
    GATEWAY = "gateway"  # facts: addresses {protocol: [host, port]}
    WAITING = "waiting"  # text: what a slow start waits for
    MEMBER = "member"  # name, facts: state, pid
    READY = "ready"  # facts: seconds
    FAILED = "failed"  # text, facts: code, detail
    RESTART = "restart"  # name, text
    RELOAD = "reload"  # text, name of the executor: something is replaced that serves
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Event:
    kind: Kind
    text: str = ""
    name: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def to_line(self) -> bytes:
        return (
            json.dumps({"kind": self.kind.value, "text": self.text, "name": self.name, "facts": self.facts}, default=str).encode() + b"\n"
        )

    @classmethod
    def from_line(cls, line: bytes) -> Event:
        """Raises `ValueError` or `KeyError` for what no supervisor wrote."""
        raw = json.loads(line)
        return cls(Kind(raw["kind"]), raw["text"], raw["name"], raw["facts"])


Emit = Callable[[Event], None]


class StartFailed(RuntimeFailToStart):
    """A local flow did not come up. `cause` is the wire code of the reason (DEADLINE_EXCEEDED: not in time), `detail` its traceback."""

    def __init__(self, text: str, *, cause: Code = Code.INTERNAL, detail: str = "") -> None:
        super().__init__(text)
        self.cause = cause
        self.detail = detail

    @classmethod
    def of(cls, event: Event) -> StartFailed:
        """The error that belongs to a `FAILED` event."""
        kind = Refused if event.facts.get("code") == Code.INVALID_ARGUMENT else cls
        return kind(event.text, cause=Code(event.facts.get("code", Code.INTERNAL)), detail=event.facts.get("detail", ""))


class Refused(StartFailed, FlowError):
    """A local flow did not come up because its definition cannot work, as its workers found out (also a `FlowError`)."""
