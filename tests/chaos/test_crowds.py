"""Promise P22, and the connections of P16: many clients that vanish, do nothing or do not read harm nobody else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import aiohttp
import psutil
import pytest

from tests.e2e.checker import nothing_left
from tests.e2e.programs import Programs, broker_of, flow_file, step, until
from tests.e2e.streams import Served, serve
from tests.waiting import eventually

from .crowd import UPGRADE, Crowd, crowd, post
from .sizes import LIMIT_S, size
from .traffic import MIB, Answer, Traffic, cpu_s, good, listening, quantile, rss, traffic

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S), pytest.mark.feature("GW-16")]
Say = Callable[[str], None]
KIB = 1024
RATE = 50.0  # requests per second of somebody else
WINDOW_S = 10.0
NOISE_MS = 10.0  # between two measurements of the same on a machine with other work, beside what the flow without a crowd shows of it


async def test_p22_thousands_of_connections_vanish_at_once(programs: Programs, say: Say) -> None:
    """Each has a request under way. The next request of somebody else is answered within a second, and nothing of theirs is left."""
    number, times = size("P22_CONNECTIONS", 2000, 8000), size("P22_TIMES", 20, 100)
    program, addresses = programs.flow(flow_file(programs.folder, "vanish", [step("work", replicas=2, pause_s=0.002)]))
    greeting = post("/run", json.dumps({"data": [{"text": "gone"}]}).encode())
    gateway = listening(program)
    next_s: list[float] = []
    async with aiohttp.ClientSession() as session:
        for _ in range(times):
            gone = await asyncio.to_thread(Crowd, addresses["http"], number, greeting)
            ports = gone.ports()
            await asyncio.to_thread(gone.vanish)
            began = monotonic()
            async with session.post(f"http://{addresses['http']}/run", json={"data": [{"text": "next"}]}) as response:
                assert response.status == 200 and (await response.json())["data"][0]["text"] == "next+"
            next_s.append(monotonic() - began)
        await asyncio.to_thread(until, lambda: not ports & _peers(gateway), 20.0, "the end of their connections")

        async def nothing_open() -> bool:
            async with session.get(f"http://{addresses['http']}/status") as response:
                return "'open-requests': '0'" in str(await response.json())

        await eventually(nothing_open, 20.0, "no request of theirs is open")
    await nothing_left(broker_of(program))
    say(
        f"P22 {number} connections with a request each dropped at once, {times} times: the next request took {max(next_s):.2f} s at most, "
        f"{sorted(next_s)[times // 2]:.2f} s (median); gateway {rss(gateway.pid) / MIB:.0f} MiB"
    )
    assert sorted(next_s)[int(0.9 * times)] <= 1.0 and max(next_s) <= 3.0  # a second, and room for a machine with other work


@pytest.mark.parametrize("kind", ["idle WebSocket", "event stream that nobody reads"])
async def test_p22_a_crowd_costs_others_nothing(programs: Programs, say: Say, kind: str) -> None:
    """The p99 of somebody else's requests before, beside and after the crowd, and what the gateway needs for each of it.

    At the same moments a second flow of this machine is asked that has no crowd: whatever else is at work here meets both.
    """
    served, calm = serve(programs, "crowd"), serve(programs, "calm")
    gateway = listening(served.program)
    if kind == "idle WebSocket":
        number, address, greeting = size("P22_IDLE", 5000, 8000), served.addresses["websocket"], UPGRADE
    else:
        number, address = size("P22_SLOW", 1000, 1000), served.addresses["http"]
        greeting = post("/say", _say("x" * 16_000, n=100_000), "text/event-stream")
    async with traffic(_url(served), _say("y", n=1)) as clients, traffic(_url(calm), _say("y", n=1)) as aside:
        await asyncio.gather(clients.closed(4, 2.0), aside.closed(4, 2.0))
        used = [cpu_s(served.program)]
        before = await _in_turns(clients, aside)
        used.append(cpu_s(served.program))
        resident = rss(gateway.pid)
        with crowd(address, number, greeting, small=True) as silent:
            heads = await asyncio.to_thread(silent.read_heads)
            assert heads == {b"HTTP/1.1 101" if kind == "idle WebSocket" else b"HTTP/1.1 200"}, heads
            await asyncio.to_thread(_settled, served.ledger)
            each = (rss(gateway.pid) - resident) / number
            used.append(cpu_s(served.program))
            beside = await _in_turns(clients, aside)
            used.append(cpu_s(served.program))
            assert silent.count_open() == number
            ports = silent.ports()
        await asyncio.to_thread(until, lambda: not ports & _peers(gateway), 20.0, "the end of their connections")
        await asyncio.sleep(1.0)
        after = await _in_turns(clients, aside)
    await nothing_left(served.broker_url)
    await nothing_left(calm.broker_url)
    more_ms = 1e3 * ((used[3] - used[2]) - (used[1] - used[0])) / WINDOW_S
    phases = (before, beside, after)
    took, elsewhere = ([_ms(answers[flow], 0.99) for answers in phases] for flow in (0, 1))
    say(
        f"P22 {number} x {kind}: {each / KIB:.1f} KiB each in the gateway, {rss(gateway.pid) / MIB:.0f} MiB afterwards; {more_ms:.0f} "
        f"ms of CPU a second for it in all processes; p99 of others at "
        f"{RATE:g}/s {_told(took)} ({took[1] / max(took[0], took[2]) - 1:+.0%}); of a flow without a crowd at the same moments "
        f"{_told(elsewhere)}; p50 {' '.join(f'{_ms(one, 0.5):.1f}:{_ms(other, 0.5):.1f}' for one, other in phases)}"
    )
    assert all(len(good(answers)) == len(answers) for both in phases for answers in both)
    assert took[1] <= 1.1 * max(took[0], took[2], elsewhere[1]) + NOISE_MS + abs(elsewhere[1] - elsewhere[0])
    assert each <= (40 if kind == "idle WebSocket" else 120) * KIB  # of a stream: its request, two documents and what is being written
    assert more_ms <= 100.0  # 0.1 ms for each stream that stands still


def _peers(gateway: psutil.Process) -> set[tuple[int, int]]:
    """Its own port and the client's, of each connection."""
    return {(connection.laddr.port, connection.raddr.port) for connection in gateway.net_connections("tcp") if connection.raddr}


def _url(served: Served) -> str:
    return f"http://{served.addresses['http']}/say"


async def _in_turns(one: Traffic, other: Traffic) -> tuple[list[Answer], list[Answer]]:
    """`RATE` requests a second to each, never at the same time."""
    first = asyncio.create_task(one.at_rate(RATE, WINDOW_S))
    await asyncio.sleep(0.5 / RATE)
    second = await other.at_rate(RATE, WINDOW_S)
    return await first, second


def _ms(answers: list[Answer], part: float) -> float:
    return 1e3 * quantile(good(answers), part)


def _told(ms: list[float]) -> str:
    return f"{ms[0]:.1f} ms before, {ms[1]:.1f} ms beside, {ms[2]:.1f} ms after"


def _say(word: str, n: int) -> bytes:
    return json.dumps({"data": [{"text": word}], "parameters": {"n": n}}).encode()


def _settled(ledger: Path) -> None:
    """Wait until no generator yields any more: each is held back by a reader that does not read."""
    size_bytes, still = -1, 0
    while still < 10:
        time.sleep(0.1)
        now = ledger.stat().st_size
        size_bytes, still = now, still + 1 if now == size_bytes else 0
