"""Bounds of single callers: rate, requests in flight, size. Kept before the bus, so that what is refused costs nobody else anything."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import Overloaded, StreamflowError, TooLarge

from .desk import refused
from .dispatch import Call, Dispatcher
from .principals import AGAIN, Principal

_FORGET_AT = 10_000  # callers; those of an identity provider may be many
_IN_FLIGHT_RETRY_S = 1


class OverLimit(Overloaded):
    """A caller is above its own limits; `retry_after_s` is when to come again, in whole seconds."""

    def __init__(self, text: str, retry_after_s: int) -> None:
        super().__init__(text, retry_after_s)
        self._text = text

    def __str__(self) -> str:
        return self._text


@dataclass(slots=True)
class Use:
    """What one caller has taken. `tokens`: requests that it may send at once, as of `since` (monotonic seconds)."""

    tokens: float
    since: float
    in_flight: int = 0


class Quotas:
    """The use of all callers of one gateway, whatever protocol they come by."""

    def __init__(self) -> None:
        self._uses: dict[tuple[str, str], Use] = {}

    def take(self, principal: Principal, size: int) -> Use:
        """Count a request with a body of `size` bytes; give the result back with `release`. Raises `TooLarge`, `OverLimit`."""
        limits = principal.limits
        if limits.max_request_bytes and size > limits.max_request_bytes:
            raise TooLarge(f"request of {size} bytes, {principal.name!r} may send {limits.max_request_bytes}")
        use = self._use_of(principal)
        if limits.in_flight and use.in_flight >= limits.in_flight:
            raise OverLimit(f"{principal.name!r} has {use.in_flight} requests in flight, which is the limit", _IN_FLIGHT_RETRY_S)
        if limits.requests_per_s:
            wait_s = _take_token(use, limits.requests_per_s, _burst(principal))
            if wait_s > 0:
                raise OverLimit(
                    f"{principal.name!r} may send {limits.requests_per_s:g} requests per second: the next one in {wait_s:.1f} s",
                    max(1, math.ceil(wait_s)),
                )
        use.in_flight += 1
        return use

    def release(self, use: Use) -> None:
        use.in_flight -= 1

    def _use_of(self, principal: Principal) -> Use:
        key = (principal.tenant, principal.name)
        use = self._uses.get(key)
        if use is None:
            if len(self._uses) >= _FORGET_AT:
                self._forget_idle()
            use = self._uses[key] = Use(_burst(principal), time.monotonic())
        return use

    def _forget_idle(self) -> None:
        """Drop the older half of those that have nothing in flight."""
        idle = sorted((use.since, key) for key, use in self._uses.items() if not use.in_flight)
        for _, key in idle[: len(idle) // 2 + 1]:
            del self._uses[key]


def _burst(principal: Principal) -> float:
    return float(principal.limits.burst or max(1.0, principal.limits.requests_per_s))


def _take_token(use: Use, per_s: float, burst: float) -> float:
    """0.0 when a token was there (token bucket), else seconds until there is one."""
    now = time.monotonic()
    use.tokens = min(burst, use.tokens + (now - use.since) * per_s)
    use.since = now
    if use.tokens < 1.0:
        return (1.0 - use.tokens) / per_s
    use.tokens -= 1.0
    return 0.0


class LimitedDispatcher(Dispatcher):
    """A dispatcher that holds each caller to its limits. Gateways without callers that have any use the plain one."""

    quotas: Quotas

    async def start(self) -> None:
        self.quotas = Quotas()
        await super().start()

    def send(self, call: Call) -> asyncio.Future[Envelope]:
        try:
            use = self.quotas.take(AGAIN.get()(), len(call.body))
        except StreamflowError as error:
            future: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
            future.set_result(refused(error, call))
            return future
        future = super().send(call)
        future.add_done_callback(lambda _: self.quotas.release(use))
        return future

    async def stream(self, call: Call) -> AsyncGenerator[Envelope, None]:
        try:
            use = self.quotas.take(AGAIN.get()(), len(call.body))
        except StreamflowError as error:
            yield refused(error, call)
            return
        try:
            async with aclosing(super().stream(call)) as parts:
                async for part in parts:
                    yield part
        finally:
            self.quotas.release(use)
