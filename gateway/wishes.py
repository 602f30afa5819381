"""What a client says beside its messages (gRPC metadata), once for all requests of one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from . import keeping
from .consistency import NAME as CONSISTENCY
from .consistency import is_latest
from .dispatch import Call
from .json_wire import earliest

_TRACE = ("traceparent", "tracestate")


@dataclass(frozen=True, slots=True)
class Wishes:
    """`deadline` is the connection's own (Unix seconds, 0.0 = none), `trace` W3C trace context; for the rest see `Call`."""

    deadline: float
    trace: Mapping[str, str]
    latest: bool
    keep_s: float

    @classmethod
    def of(cls, metadata: Mapping[str, str], deadline: float = 0.0) -> Self:
        """Raises `InvalidInput` naming the entry."""
        keep = metadata.get(keeping.NAME)
        return cls(
            deadline,
            {key: metadata[key] for key in _TRACE if key in metadata},
            is_latest(metadata.get(CONSISTENCY, "")),
            0.0 if keep is None else keeping.keep_s_of(keep),
        )

    def applied(self, call: Call) -> Call:
        """`call` with what it asks for; its own message's trace and the earlier deadline win."""
        if self.deadline:
            call.deadline = earliest(call.deadline, self.deadline)
        if self.trace:
            call.trace = call.trace or dict(self.trace)
        call.latest = self.latest
        call.keep_s = self.keep_s
        return call
