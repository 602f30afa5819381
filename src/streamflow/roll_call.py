"""Which workers of a flow are alive: asks them over the broker, as a gateway does. For `streamflow ping nats://.../<flow>/<executor>`."""

from __future__ import annotations

import asyncio

from streamflow.broker import bucket, lifecycle, subjects
from streamflow.broker.accounts import settings_for
from streamflow.broker.announce import Announcement, State
from streamflow.broker.bus import Bus
from streamflow.broker.errors import InvalidInput, StreamflowError, Unavailable
from streamflow.broker.lifecycle import Stop
from streamflow.broker.permissions import Role
from streamflow.broker.settings import BrokerSettings


def check(url: str, flow: str, executor: str, timeout_s: float) -> None:
    """Return once every executor of `flow` (or just `executor`) has a ready replica. Raises `NotFound`, `Unavailable` naming the others."""
    failures: list[StreamflowError] = []

    async def main(_stop: Stop) -> int:
        try:
            await _check(url, subjects.token(flow, "flow"), executor, timeout_s)
        except StreamflowError as error:
            failures.append(error)
        return lifecycle.OK

    lifecycle.run(main)
    if failures:
        raise failures[0]


async def _check(url: str, flow: str, executor: str, timeout_s: float) -> None:
    settings = settings_for(BrokerSettings(broker_url=url, connect_wait_s=timeout_s), Role.CLIENT, flow)
    bus = await Bus.connect(settings, "ping")
    try:
        await bucket.require(bus, flow)
        graph = await bucket.load_graph(bus, flow)
        missing = {graph.node(executor).name} if executor else {node.name for node in graph.nodes if not node.external}
        complete = asyncio.Event()

        def hear(_subject: bytes, _reply: bytes, _header: bytes | None, payload: bytes) -> None:
            try:
                said = Announcement.decode(payload)
            except InvalidInput:
                return
            if said.state is State.READY:
                missing.discard(said.executor)
            if not missing:
                complete.set()

        await bus.listen(subjects.control(flow, "announce"), hear)
        bus.publish(subjects.control(flow, "hello"), b"")
        if missing:
            await _wait(complete, missing, timeout_s)
    finally:
        await bus.close()


async def _wait(complete: asyncio.Event, missing: set[str], timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await complete.wait()
    except TimeoutError:
        raise Unavailable(f"no ready replica of {', '.join(sorted(missing))}") from None
