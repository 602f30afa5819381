"""How a stream's reader holds its generator back: bounds that both ends know, and the report in between.

A generator may be at most `WINDOW_PARTS` parts ahead of the client, and as many bytes as the gateway says: the fewer, the more streams it
has. The gateway reports how far the client has come every `REPORT_PARTS` parts, and whenever the worker asks. Reports are core NATS and
cumulative: a lost one is made good by the next.
"""

from __future__ import annotations

from typing import NamedTuple

WINDOW_PARTS = 64
# Bytes as the generator's own worker encodes them; one part may be larger. What slow readers cost a gateway.
LEAST_BYTES = 16 << 10  # the gateway never says less, and has not said anything yet when a stream begins
MOST_BYTES = 256 << 10
ALL_BYTES = 4 << 20  # of all streams of a gateway together, unless each has the least
REPORT_PARTS = WINDOW_PARTS // 4
MAX_EARLY = 4 * WINDOW_PARTS  # parts that may wait in a gateway for one that is missing: more than a worker that keeps its window can send

GONE = b"gone"  # nobody waits for this stream any more
SUPERSEDED = b"superseded"  # another run of the same request has taken over


class Report(NamedTuple):
    """Parts that the client has taken; the first part that the gateway does not have yet, where another attempt goes on; and how many bytes
    the generator may be ahead."""

    taken: int
    wanted: int
    window_bytes: int = LEAST_BYTES

    def encode(self) -> bytes:
        return b"%d %d %d" % self

    @classmethod
    def decode(cls, payload: bytes) -> Report:
        """Raises `ValueError` for anything else."""
        taken, wanted, window_bytes = payload.split()
        return cls(int(taken), int(wanted), int(window_bytes))


def window_bytes(streams: int) -> int:
    """How far ahead each of so many open streams may be. They keep to it from their next report on, so where many come one after the other
    the first ones have more for a while."""
    return max(LEAST_BYTES, min(MOST_BYTES, ALL_BYTES // max(1, streams)))
