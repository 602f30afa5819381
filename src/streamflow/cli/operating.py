"""Where the commands of an operator reach the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from streamflow.broker.accounts import settings_for
from streamflow.broker.bus import Bus
from streamflow.broker.permissions import Role
from streamflow.broker.settings import BrokerSettings

from .options import given

T = TypeVar("T")
CONNECT_S = 5.0


def operate(url: str | None, flow: str, command: str, do: Callable[[Bus], Awaitable[T]]) -> T:
    """What `do` gives on a connection that the broker lists under the name of the `command`.

    With the operator's key of `flow` where the credentials are a folder of keys; "" = of no flow, with the credentials as they are.
    """
    settings = BrokerSettings(**given({"broker_url": url, "connect_wait_s": CONNECT_S}))

    async def connected() -> T:
        bus = await Bus.connect(settings_for(settings, Role.OPERATOR, flow) if flow else settings, command)
        try:
            return await do(bus)
        finally:
            await bus.close()

    return asyncio.run(connected())
