"""The process beside a worker: when it speaks in the worker's place, and what it says. This process is the worker."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from streamflow.broker.bus import Bus
from streamflow.broker.settings import BrokerSettings
from streamflow.workers import companion
from streamflow.workers.companion import NAME, watched
from streamflow.workers.leases import Terms
from tests.e2e.programs import is_over
from tests.waiting import eventually

PERIOD_S, PAUSE_S = 0.2, 0.05


@pytest.fixture
def address(settings: BrokerSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json")


@pytest.fixture
async def heard(bus: Bus, flow_name: str) -> list[tuple[str, bytes]]:
    """What is published below the flow's name, without that name."""
    heard: list[tuple[str, bytes]] = []
    await bus.listen(f"{flow_name}.>", lambda subject, _r, _h, payload: heard.append((subject.decode().partition(".")[2], payload)))
    return heard


def companions() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.name() == NAME]


def mine() -> psutil.Process:
    """The companion of this process."""
    [found] = companions()
    return found


def connections(process: psutil.Process) -> int:
    """Its own: it shares the one of this test."""
    return len(process.net_connections()) - len(psutil.Process().net_connections())


def more(heard: list[tuple[str, bytes]], count: int = 0) -> Callable[[], bool]:
    return lambda: len(heard) > count


async def test_it_speaks_while_the_worker_cannot(
    address: dict[str, Any], flow_name: str, heard: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(companion, "STAY_S", 1.0)
    with watched(None) as leases:
        await eventually(companions, what="the companion has its name")
        process = mine()
        leases.open("e", address, Terms(os.getpid(), PERIOD_S, PAUSE_S, math.inf))
        leases.announce((f"{flow_name}.announce", b"here"))
        leases.hold(f"{flow_name}.ack.1", 0.0)
        leases.hold(f"{flow_name}.ack.2", time.time() - 1.0)  # past its deadline
        leases.beat()
        await eventually(lambda: ("announce", b"here") in heard and heard.count(("ack.1", b"+WPI")) > 2)
        assert connections(process) == 1
        leases.release(f"{flow_name}.ack.1")
        leases.hold(f"{flow_name}.ack.3", 0.0)
        await eventually(lambda: ("ack.3", b"+WPI") in heard)
        assert not [subject for subject, _ in heard if subject == "ack.2"]
        leases.close()
        await eventually(lambda: connections(process) == 0, what="the end of its connection")
        count = len(heard)
        leases.beat()
        await eventually(more(heard, count), what="it comes again")
    assert is_over(process)


async def test_it_is_silent_beside_a_worker_that_speaks(address: dict[str, Any], flow_name: str, heard: list[tuple[str, bytes]]) -> None:
    with watched(None) as leases:
        await eventually(lambda: psutil.Process().children())
        leases.open("e", address, Terms(os.getpid(), 4.0, 2.0, math.inf))
        leases.hold(f"{flow_name}.ack.1", 0.0)
        for _ in range(20):
            leases.beat()
            await asyncio.sleep(0.02)
        assert connections(mine()) == 0 and not heard


async def test_it_stops_at_the_limit(
    address: dict[str, Any], flow_name: str, heard: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(companion, "GRACE_S", 0.5)
    with watched(None) as leases:
        leases.hold(f"{flow_name}.ack.1", 0.0)
        leases.open("e", address, Terms(os.getpid(), PERIOD_S, PAUSE_S, 1.0))
        leases.beat()
        await eventually(more(heard))
        await eventually(lambda: leases.silent_s > 1.5)
        count = len(heard)
        await eventually(lambda: leases.silent_s > 1.5 + 4 * PERIOD_S)
        assert len(heard) <= count + 1  # one may have been on its way
        assert set(heard) == {("ack.1", b"+WPI")}, "this process did not end: nothing is handed back"


def test_where_no_process_can_be_started_the_worker_works_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with caplog.at_level(logging.WARNING), watched(None) as leases:
        leases.hold("subject", 0.0)
        assert leases.held() == ["subject"]
    assert "no process beside this one" in caplog.text
