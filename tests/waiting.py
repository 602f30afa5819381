"""Wait for a condition instead of sleeping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable


async def eventually(condition: Callable[[], object], timeout_s: float = 10.0, what: str = "the condition") -> None:
    """Return when `condition()`, or what it gives to await, is true; fail the test after `timeout_s`."""
    limit = time.monotonic() + timeout_s
    while not (await found if inspect.isawaitable(found := condition()) else found):
        assert time.monotonic() < limit, f"{what} did not come true within {timeout_s} s"
        await asyncio.sleep(0.005)
