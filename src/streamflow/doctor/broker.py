"""The examination of a broker: is it new enough, does it keep what was promised, are its flows as their deployers meant them.

What cannot be proven is not taken as true: a flow that promises `fsync` on a broker that does not show its settings fails.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.errors import StreamflowError
from streamflow.broker.queues import list_streams
from streamflow.broker.redact import shown_url
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.versions import MINIMUM_VERSION, version_of

from . import deployed, promise
from .monitoring import look
from .verdict import Verdict, fail, ok, warn

CLOCK_WARN_S = 0.5
CLOCK_FAIL_S = 5.0


async def examine(settings: BrokerSettings) -> AsyncIterator[Verdict]:
    """Everything there is to say about the broker and the flows on it. Never raises for what is wrong with them."""
    try:
        bus = await Bus.connect(settings, "doctor")
    except StreamflowError as error:
        yield fail(str(error), "nothing else can be examined")
        return
    try:
        yield ok(f"connected to {shown_url(settings.broker_url)}")
        async for verdict in _examine(bus, settings):
            yield verdict
    except StreamflowError as error:
        yield fail(f"the examination ended early: {error}", "look at what is above, and at the broker's log")
    finally:
        for subject in sorted(bus.forbidden):
            yield warn(f"permissions: this user may not publish to {subject}", "ask again with the credentials of an operator")
        await bus.close()


async def _examine(bus: Bus, settings: BrokerSettings) -> AsyncIterator[Verdict]:
    yield _version(bus.server_version)
    try:
        account = await bus.api("INFO")
    except StreamflowError as error:
        yield fail(f"JetStream does not answer: {error}", "start the nats-server with JetStream and a store_dir")
        return
    flows = await deployed.find(bus, await list_streams(bus))
    servers = promise.own_servers(await look(settings), flows, bus.server_id)
    yield promise.durability(settings.durability, flows, servers)
    for verdict in (*_account(account), *(each for server in servers for each in promise.quota(server))):
        yield verdict
    for flow in flows:
        for verdict in await deployed.examine(bus, flow, settings):
            yield verdict
    if flows:
        yield await _clock(bus, flows[0].name)
    else:
        yield ok("no flow is deployed here")


def _version(text: str) -> Verdict:
    floor, found = ".".join(map(str, MINIMUM_VERSION)), version_of(text)
    if found is None or found < MINIMUM_VERSION:
        return fail(f"the broker is {text}: below {floor} it has known security holes", f"install nats-server {floor} or newer")
    return ok(f"version {'.'.join(map(str, found))} (at least {floor})")


def _account(account: dict[str, Any]) -> list[Verdict]:
    limit, used = account["limits"]["max_storage"], account["storage"]
    if 0 < limit * deployed.FULL < used:
        return [warn(f"quota: {used} of the {limit} bytes of this account are used", "remove what is not needed, or raise its limit")]
    return []


async def _clock(bus: Bus, flow: str) -> Verdict:
    """Deadlines are moments of the gateway's clock that workers and broker compare with their own."""
    before = time.time()
    told = (await bus.api(f"STREAM.INFO.{subjects.bucket_stream(flow)}"))["ts"]
    ahead_s = datetime.fromisoformat(told).timestamp() - (before + time.time()) / 2
    text = f"clock: the broker is {abs(ahead_s):.3f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    if abs(ahead_s) < CLOCK_WARN_S:
        return ok(text)
    judge = fail if abs(ahead_s) > CLOCK_FAIL_S else warn
    return judge(text, "synchronise the clocks (NTP): deadlines of requests depend on them")
