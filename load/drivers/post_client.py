"""Load through a framework's own `Client.post`; run by the interpreter of that framework, chosen by LOAD_FRAMEWORK.

`check`   200 documents, one per request: every answer must carry its own text.
`stream`  one `post` with a fixed number in flight for some seconds; latency from handing a document to the client to its answer.
`tensors` the same with 128 documents of `(768,)` float32 per request.
`bulk`    a generator of many small documents, `request_size` 100, the client's default prefetch.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from docarray import DocList
from docarray.documents import TextDoc

from load.drivers.figures import summary
from load.executors import Vector, framework

CHECKS = 200
WARM_S = 1.0
SILENCE_S = 20.0  # after the end of the input; whatever is open then is lost
BATCH, WIDTH = 128, 768
TEXT_BYTES = 1024
REQUEST_SIZE, SAMPLE_DOCS, EARLY_DOCS = 100, 1_000, 10_000


class Stream:
    """One `post` whose input waits for answers, so that exactly `concurrency` requests are in flight.

    The gate is here and not in `prefetch`: jina's gRPC client hands `prefetch` to the server and itself writes ahead without limit.
    Each request is known by its first document; prepared requests are used again, long after their answer has come.
    """

    def __init__(self, requests: list[list[Any]], concurrency: int) -> None:
        self._requests = requests
        self._free = asyncio.Semaphore(concurrency)
        self._sent: dict[str, float] = {}
        self._latencies: list[float] = []
        self._wrong = 0

    async def run(self, client: Any, endpoint: str, seconds: float) -> dict[str, float]:
        start = time.perf_counter()
        size = len(self._requests[0])
        returned = DocList[type(self._requests[0][0])]  # type: ignore[misc]
        try:
            async with asyncio.timeout(seconds + SILENCE_S):
                async for docs in client.post(endpoint, inputs=self._inputs(start + seconds), request_size=size, return_type=returned):
                    self._count(docs, size)
        except TimeoutError:
            raise SystemExit(f"{len(self._sent)} of {len(self._latencies) + len(self._sent)} requests were never answered") from None
        return summary(self._latencies, self._wrong, time.perf_counter() - start)

    async def _inputs(self, end: float) -> AsyncIterator[Any]:
        for request in itertools.cycle(self._requests):
            await self._free.acquire()
            now = time.perf_counter()
            if now >= end:
                return
            self._sent[request[0].id] = now
            for doc in request:
                yield doc

    def _count(self, docs: Any, size: int) -> None:
        self._free.release()
        sent = self._sent.pop(docs[0].id, None) if len(docs) == size else None
        if sent is None:
            self._wrong += 1
        self._latencies.append(time.perf_counter() - sent if sent else 0.0)


def texts(count: int) -> list[list[Any]]:
    return [[TextDoc(id=f"{n:032x}", text="x" * TEXT_BYTES)] for n in range(count)]


def tensors(count: int) -> list[list[Any]]:
    values = np.random.default_rng(7).random((BATCH, WIDTH), dtype=np.float32)
    return [[Vector(id=f"{n:016x}{row:016x}", embedding=values[row]) for row in range(BATCH)] for n in range(count)]


async def stream(client: Any, given: argparse.Namespace) -> dict[str, float]:
    """Warm up, then measure. `requests_all` counts both, for the server's CPU per request."""
    requests = (tensors if given.mode == "tensors" else texts)(4 * given.concurrency)
    warm = await Stream(requests, given.concurrency).run(client, given.endpoint, WARM_S)
    cpu = time.process_time()
    figures = await Stream(requests, given.concurrency).run(client, given.endpoint, given.seconds)
    client_cpu = (time.process_time() - cpu) / max(1, figures["requests"]) * 1e6
    return figures | {"requests_all": warm["requests"] + figures["requests"], "client_cpu_us": client_cpu}


async def bulk(client: Any, given: argparse.Namespace) -> dict[str, float]:
    """Memory is sampled every 1,000 documents; growth is the peak after 10,000 documents above the peak until then."""
    before = rss_mb()
    received, early, late, start = 0, [before], [0.0], time.perf_counter()
    docs_in = (TextDoc(id=f"{n:032x}", text=f"document {n}") for n in range(given.docs))
    async for docs in client.post(given.endpoint, inputs=docs_in, request_size=REQUEST_SIZE, return_type=DocList[TextDoc]):
        received += len(docs)
        if received % SAMPLE_DOCS < REQUEST_SIZE:
            (early if received <= EARLY_DOCS else late).append(rss_mb())
    return {
        "requests": received / REQUEST_SIZE,
        "errors": given.docs - received,
        "docs_per_s": received / (time.perf_counter() - start),
        "client_before_mb": before,
        "client_peak_mb": max(*early, *late),
        "client_growth_mb": max(0.0, max(late) - max(early)),
    }


def rss_mb() -> float:
    """Resident memory now. From /proc: the peak that getrusage reports also remembers the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


async def check(client: Any, given: argparse.Namespace) -> dict[str, float]:
    if given.endpoint == "/double":
        return await check_tensors(client, given.endpoint)
    docs_in = [TextDoc(id=f"{n:032x}", text=f"text {n}") for n in range(CHECKS)]
    expected = {doc.id: doc.text + given.suffix for doc in docs_in}
    async for docs in client.post(given.endpoint, inputs=docs_in, request_size=1, return_type=DocList[TextDoc]):
        for doc in docs:
            if expected.get(doc.id) == doc.text:
                del expected[doc.id]
    return {"requests": CHECKS, "wrong": len(expected)}


async def check_tensors(client: Any, endpoint: str) -> dict[str, float]:
    given = tensors(1)[0]
    right = 0
    async for docs in client.post(endpoint, inputs=given, request_size=BATCH, return_type=DocList[Vector]):
        right += sum(np.array_equal(np.asarray(out.embedding), row.embedding * 2) for out, row in zip(docs, given, strict=True))
    return {"requests": 1, "wrong": BATCH - right}


MODES = {"check": check, "stream": stream, "tensors": stream, "bulk": bulk}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("host")
    parser.add_argument("endpoint")
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--docs", type=int, default=100_000)
    parser.add_argument("--suffix", default="")
    given = parser.parse_args()
    client = framework.Client(host=given.host, asyncio=True)
    print(json.dumps(asyncio.run(MODES[given.mode](client, given))))


if __name__ == "__main__":
    main()
