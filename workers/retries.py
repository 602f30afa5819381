"""Trying again after an exception that the executor names in `retry_on`: how often, and after how long.

The waiting is the broker's: the request is stored as a scheduled message (ADR-51) and the delivery that failed is acked, so that
neither a slot nor a thread nor this process waits (docs/decisions/0016-retries-reload-restarts.md).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Self

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import Status
from streamflow.broker.flow import Node

DEFAULT_RETRIES = 3  # when `retry_on` stands alone; also Jina's least number when `retries` is negative


@dataclass(frozen=True, slots=True)
class Retries:
    """How one executor is tried again: `limit` attempts after the first, waiting `first_s`, doubling up to `longest_s`."""

    limit: int = 0
    first_s: float = 0.5
    longest_s: float = 30.0

    @classmethod
    def of(cls, node: Node) -> Self:
        if not node.retry_on:
            return cls()
        limit = DEFAULT_RETRIES if node.retries is None else node.retries
        return cls(limit if limit >= 0 else max(DEFAULT_RETRIES, node.replicas), node.backoff_s, max(node.backoff_s, node.max_backoff_s))

    def next_s(self, envelope: Envelope, attempt: int) -> float | None:
        """Seconds until the next attempt after number `attempt` failed; None when it was the last, or the deadline comes first.

        Between half and all of the doubled time, so that requests that failed together do not come again together.
        """
        if attempt > self.limit:
            return None
        delay_s = min(self.first_s * 2.0 ** min(attempt - 1, 30), self.longest_s) * random.uniform(0.5, 1.0)
        remaining_s = envelope.remaining_s()
        return delay_s if remaining_s is None or delay_s < remaining_s else None

    def told(self, status: Status, attempt: int) -> Status:
        """`status` saying how many attempts it took."""
        if not self.limit:
            return status
        attempts = "1 attempt" if attempt == 1 else f"{attempt} attempts"
        return replace(status, description=f"{status.description} (given up after {attempts} of {self.limit + 1})")
