"""Mutated requests over each protocol, and garbage on each port: clean errors only, and the flow is none the worse (P28)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from tests.chaos.fuzzing import FUZZERS, Target, serve, unharmed

from .programs import Programs

SEED, NUMBER = 20261120, 600


@pytest.fixture(scope="module")
def target(module_programs: Programs) -> Target:
    return serve(module_programs)


@pytest.mark.parametrize("protocol", FUZZERS)
async def test_mutated_requests_get_clean_answers(target: Target, protocol: str, say: Callable[[str], None]) -> None:
    async with unharmed(target):
        tally = await FUZZERS[protocol](target, SEED, NUMBER)
    say(f"{NUMBER} mutated requests over {protocol}: {tally} (seed {SEED})")
    assert not tally.unclean, f"{len(tally.unclean)} unclean answers, such as {tally.unclean[:3]}"


POST = b"POST /run HTTP/1.1\r\nHost: h\r\n"
UPGRADE = b"GET /run HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
OPENINGS = [
    b"", b"\x00" * 100, b"\xff" * 4096, b"A" * 200_000, b"GET / HTTP/1.1\r\n", b"CONNECT {} HTTP/1.1\r\n\r\n",
    POST + b"Content-Length: -1\r\n\r\n", POST + b"Content-Length: 99999999999999999999\r\n\r\n", POST + b"Content-Length: 50\r\n\r\nshort",
    POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", POST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    UPGRADE + b"x\r\n\r\n\xff\xff\xff\xff",
    UPGRADE + b"dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + bytes(4),
    b"GET " + b"/a" * 40_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("protocol", ["http", "websocket", "grpc"])
async def test_garbage_on_every_port(target: Target, protocol: str) -> None:
    host, port = target.addresses[protocol].split(":")
    chance = random.Random(SEED)
    noise = [chance.randbytes(chance.randint(1, 3000)) for _ in range(30)]

    async def throw(data: bytes) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(data)
            await asyncio.wait_for(reader.read(65536), 0.5)
        except (OSError, TimeoutError):
            pass  # an answer, a closed connection or silence: all are fair, as long as others are served
        finally:
            writer.close()

    async with unharmed(target):
        await asyncio.gather(*(throw(data) for data in OPENINGS + noise))
