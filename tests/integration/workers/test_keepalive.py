"""Signs of life for many deliveries."""

from __future__ import annotations

import time

import pytest

from streamflow.broker.bus import Bus
from streamflow.broker.settings import BrokerSettings
from streamflow.workers import keepalive
from streamflow.workers.keepalive import AT_ONCE, Keepalive
from tests.waiting import eventually


async def test_they_are_spread_so_that_others_are_served_in_between(
    settings: BrokerSettings, bus: Bus, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepalive, "BREATH_S", 0.05)
    heard: dict[bytes, float] = {}

    def hear(subject: bytes, _reply: bytes, _header: bytes | None, _payload: bytes) -> None:
        heard.setdefault(subject, time.monotonic())

    await bus.listen(f"{flow_name}.ack.*", hear)
    await bus.flush()
    held = 4 * AT_ONCE
    kept = Keepalive(settings, "e", 0.4, lambda: (f"{flow_name}.announce", b"here"))
    for number in range(held):
        kept.hold(f"{flow_name}.ack.{number}", 0.0)
    kept.start()
    try:
        await eventually(lambda: len(heard) == held)
    finally:
        kept.stop()
    assert max(heard.values()) - min(heard.values()) >= 0.1, "they came all at once"
