"""How a stream's reader holds its generator back: bounds that both ends know, and the report in between.

A generator may be at most `WINDOW_PARTS` parts and `WINDOW_BYTES` bytes ahead of the client. The gateway reports how far the client has
come every `REPORT_PARTS` parts, and whenever the worker asks. Reports are core NATS and cumulative: a lost one is made good by the next.
"""

from __future__ import annotations

from typing import NamedTuple

WINDOW_PARTS = 64
WINDOW_BYTES = 64 << 10  # as the generator's own worker encodes them; one part may be larger. What a slow reader costs a gateway
REPORT_PARTS = WINDOW_PARTS // 4
MAX_EARLY = 4 * WINDOW_PARTS  # parts that may wait in a gateway for one that is missing: more than a worker that keeps its window can send

GONE = b"gone"  # nobody waits for this stream any more
SUPERSEDED = b"superseded"  # another run of the same request has taken over


class Report(NamedTuple):
    """Parts that the client has taken, and the first part that the gateway does not have yet: where another attempt goes on."""

    taken: int
    wanted: int

    def encode(self) -> bytes:
        return b"%d %d" % self

    @classmethod
    def decode(cls, payload: bytes) -> Report:
        """Raises `ValueError` for anything else."""
        taken, wanted = payload.split()
        return cls(int(taken), int(wanted))
