"""When to send again: exponential back-off with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter")."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often a request is sent, and the pause before attempt n + 1: random in [0, min(initial_s * multiplier**(n-1), max_s)]."""

    max_attempts: int = 1
    initial_s: float = 0.5
    max_s: float = 2.0
    multiplier: float = 1.5

    def pause_s(self, attempt: int) -> float:
        """Seconds to wait after failed attempt `attempt` (from 1)."""
        # A float power overflows after some hundred attempts; the cap is reached long before that.
        growth = self.multiplier ** min(attempt - 1, 64)
        return random.uniform(0, min(self.initial_s * growth, self.max_s))


async def wait_or_raise_err(
    attempt: int,
    err: BaseException,
    max_attempts: int,
    backoff_multiplier: float,
    initial_backoff: float,
    max_backoff: float,
) -> None:
    """Sleep before the next attempt of a caller's own retry loop; raise `err` when `attempt` was the last one."""
    if attempt >= max_attempts:
        raise err
    await asyncio.sleep(Backoff(max_attempts, initial_backoff, max_backoff, backoff_multiplier).pause_s(attempt))
