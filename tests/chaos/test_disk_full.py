"""The broker's disk is full, by us and by another process (promise P8): clients hear 429 at once, nothing accepted is lost, it heals."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from streamflow.broker.server import EmbeddedBroker
from tests.e2e.checker import Done, Load, Seen, _seen, check, nothing_left
from tests.e2e.programs import Program, Programs, addresses_of, broker_of, flow_file, step

from .scenarios import MARK, Parts, marked

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")]

DISK_BYTES = 96 << 20
PADDING = "x" * 20_000
REFUSED_S = 1.0
HEALED_S = 30.0
QUOTAS = {"STREAMFLOW_MAX_QUEUE_BYTES": str(4 << 20), "STREAMFLOW_MAX_JOB_BYTES": str(2 << 20)}
Say = Callable[[str], None]


class Heavy(Load):
    """Requests of 20 KB."""

    async def _ask(self, session: aiohttp.ClientSession, name: str) -> Seen:
        started = time.monotonic()
        body = {"data": [{"id": name, "text": name, "tags": [PADDING]}]}
        async with session.post(self.url, json=body) as response:
            assert response.status != 429 or response.headers["Retry-After"]
            return _seen(name, response.status, await response.read(), time.monotonic() - started)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> Path:
    """Another process takes all the room there is."""
    ballast = disk / "ballast"
    script = "import sys\nwith open(sys.argv[1], 'wb', 0) as file:\n  try:\n    while True: file.write(bytes(4096))\n  except OSError: pass"
    subprocess.run([sys.executable, "-c", script, str(ballast)], check=True)
    return ballast


def names(start: int, count: int) -> list[str]:
    return [f"r{at}" for at in range(start, start + count)]


async def until_served(url: str, since: float, sent: list[str], seen: list[Seen]) -> float:
    """Ask every half second until a request is served again. Returns the seconds from `since` on."""
    while time.monotonic() < since + HEALED_S:
        load = Heavy(url, in_flight=1)
        [name] = names(len(sent), 1)
        await load.run([name])
        sent.append(name)
        seen += load.seen
        if load.seen[0].status == 200:
            return time.monotonic() - since
        await asyncio.sleep(0.5)
    raise AssertionError(f"not served within {HEALED_S:g} s after there was room again: {seen[-1]}")


async def disk_filled(url: str, broker_url: str, disk: Path, ledger: Path) -> str:
    """Requests before, while and after the disk is full."""
    sent, seen = names(0, 200), list[Seen]()
    before = Heavy(url, in_flight=16)
    await before.run(sent)
    ballast = fill(disk)
    full = Heavy(url, in_flight=16)
    during = names(len(sent), 400)
    await full.run(during)
    sent += during
    refused = [one for one in full.seen if one.status == 429]
    slowest_s = max(one.seconds for one in full.seen)
    ballast.unlink()
    healed_s = await until_served(url, time.monotonic(), sent, seen)
    after = Heavy(url, in_flight=16)
    later = names(len(sent), 200)
    await after.run(later)
    await nothing_left(broker_url)
    check(sent + later, before.seen + full.seen + seen + after.seen, Done.read(ledger), marked, refused=frozenset({429}))
    assert {one.status for one in before.seen + after.seen} == {200}
    assert refused, "the disk never was full: the test shows nothing"
    assert slowest_s <= REFUSED_S, f"{slowest_s:.2f} s for {max(full.seen, key=lambda one: one.seconds)}"
    return f"{len(refused)} of {len(during)} refused while it was full, slowest answer {slowest_s:.2f} s; healed {healed_s:.1f} s after"


async def test_another_process_fills_the_disk_of_a_local_flow(programs: Programs, disk: Path, say: Say) -> None:
    ledger = programs.folder / "ledger"
    file = flow_file(
        programs.folder, "disk", [step("work", replicas=2, ledger=str(ledger), mark=MARK)], broker={"store": str(disk / "broker")}
    )
    program = programs.streamflow("flow", "--uses", str(file), **QUOTAS)
    url = f"http://{addresses_of(program)['http']}/run"
    say(f"disk full, local flow: {await disk_filled(url, broker_of(program), disk, ledger)}")


async def test_another_process_fills_the_disk_of_streamflow_broker(
    programs: Programs, disk: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in QUOTAS.items():
        monkeypatch.setenv(name, value)
    program = programs.streamflow("broker", "--port", "0", "--store", str(disk / "broker"))
    url = program.wait_for(r"Broker is ready: (nats://\S+)")[1]
    parts = Parts(programs, Served(url, program))  # type: ignore[arg-type]  # all that it needs is the URL
    _, gateway = parts.gateway()
    parts.workers(2)
    say(f"disk full, streamflow broker: {await disk_filled(gateway, url, disk, parts.ledger)}")


class Served:
    """A broker of another process."""

    def __init__(self, url: str, program: Program) -> None:
        self.url = url
        self.program = program


async def test_our_own_queue_never_fills_the_disk(programs: Programs, disk: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quota of a queue is below the disk's size: what is more is refused at once, and the rest is served when workers come."""
    for name, value in QUOTAS.items():
        monkeypatch.setenv(name, value)
    broker = EmbeddedBroker(disk / "broker")
    broker.start()
    try:
        parts = Parts(programs, broker)
        _, url = parts.gateway()
        load = Heavy(url, in_flight=400)
        sent = names(0, 400)
        sending = asyncio.create_task(load.run(sent))
        await asyncio.sleep(2)
        refused = [one for one in load.seen if one.status == 429]
        assert 100 < len(refused) < 300, f"{len(refused)} of 400 requests of 20 KB refused by a queue of 4 MiB"
        parts.workers(1)
        await sending
        await nothing_left(broker.url)
        check(sent, load.seen, Done.read(parts.ledger), marked, refused=frozenset({429}))
        slowest_s = max(one.seconds for one in refused)
        say(f"queue full: {len(refused)} of {len(sent)} refused, the slowest after {slowest_s:.2f} s, the others served when a worker came")
        assert slowest_s <= REFUSED_S
    finally:
        broker.stop()
