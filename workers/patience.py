"""Waiting for a broker that is away, or full, with the result in hand."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from streamflow.broker.errors import Overloaded, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
RETRY_S = 0.25
FULL_S = 30.0  # for so long a result waits for room; those who wait for parts that find no room must not wait for ever


async def patiently(what: str, call: Callable[[], Awaitable[T]], *, full_s: float = 0.0) -> T:
    """What `call` gives, however long the broker is away; where it has no room, `full_s` seconds at most. `what` waits, for the log."""
    limit = time.monotonic() + full_s
    while True:
        try:
            return await call()
        except Unavailable as error:
            log.warning("%s: %s", what, error)
        except Overloaded as error:
            if time.monotonic() >= limit:
                raise
            log.warning("%s: %s", what, error)
        await asyncio.sleep(RETRY_S)
