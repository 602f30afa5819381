"""A served flow for jobs, and what may be said about a job from outside: what is stored, what the executors did, how long clients wait."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import aiohttp
import psutil
from docarray.documents import TextDoc

from streamflow.broker import reader, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from tests.e2e.programs import Program, Programs, addresses_of, flow_file

from .scenarios import is_alive

BATCH = Path(__file__).parents[1] / "e2e" / "executors" / "batch.py"
FLOW = "batch"


class Setting:
    """`streamflow flow` with `replicas` of `Batch`, restarted by its supervisor, on a broker that the test may kill."""

    def __init__(self, programs: Programs, broker: EmbeddedBroker, *, replicas: int = 2, pause_s: float = 0.0) -> None:
        self.broker = broker
        self.folder = programs.folder
        self.ledger = programs.folder / "ledger"
        uses = {"jtype": "Batch", "py_modules": [str(BATCH)], "with": {"ledger": str(self.ledger), "pause_s": pause_s}}
        executors = [{"name": "upper", "replicas": replicas, "uses": uses}]
        file = flow_file(programs.folder, FLOW, executors, protocols=("http", "grpc"))
        self.program, _ = programs.flow(file, "--broker", broker.url)
        self.urls = {name: f"{name}://{address}" for name, address in addresses_of(self.program).items()}
        self.urls["nats"] = f"{broker.url}/{FLOW}"

    def executions(self) -> Counter[str]:
        """How often each document was worked on."""
        return Counter(name for line in self._lines() for name in line[1:])

    def workers(self) -> list[int]:
        """Processes that have worked and are alive."""
        return [pid for pid in {int(line[0]) for line in self._lines()} if is_alive(pid)]

    def kill_workers(self) -> int:
        """SIGKILL all of them at once; how many."""
        pids = self.workers()
        for pid in pids:
            psutil.Process(pid).kill()
        return len(pids)

    def _lines(self) -> Iterator[list[str]]:
        return (line.split() for line in self.ledger.read_text().splitlines()) if self.ledger.exists() else iter(())

    def restart_broker(self) -> None:
        self.broker.kill()
        self.broker.start()

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[Bus]:
        bus = await Bus.connect(BrokerSettings(broker_url=self.broker.url), "checker")
        try:
            yield bus
        finally:
            await bus.close()

    async def recorded(self, job_id: str) -> dict[str, str]:
        """Number of each stored outcome -> its digest; fails when one was stored twice."""
        found: dict[str, str] = {}
        async with self.bus() as bus:
            async for message in reader.read(bus, subjects.results_stream(FLOW), subjects.result(FLOW, f"{job_id}.*")):
                number = message.subject.rpartition(".")[2]
                assert number not in found, f"outcome {number} of job {job_id} is recorded twice"
                found[number] = sha256(message.payload).hexdigest()
        return found


def documents(number: int) -> Iterator[TextDoc]:
    return (TextDoc(id=f"d{at}", text=f"some text {at}") for at in range(number))


def lines_file(folder: Path, number: int) -> Path:
    path = folder / f"{number}.jsonl"
    with path.open("w") as file:
        for at in range(number):
            file.write(json.dumps({"id": f"d{at}", "text": f"some text {at}"}) + "\n")
    return path


def submitting(programs: Programs, broker_url: str, file: Path, key: str) -> Program:
    """`streamflow submit` of `file`, a document in each request."""
    return programs.streamflow(
        "submit", "--flow", FLOW, "--broker", broker_url, "--on", "/upper", "--inputs", str(file), "--request-size", "1", "--key", key
    )


class LiveTraffic:
    """Online requests over HTTP, `per_s` a second whatever the answers take; seconds that each took."""

    def __init__(self, url: str, per_s: float) -> None:
        self._url = f"{url}/upper"
        self._pause_s = 1 / per_s
        self._waits: list[float] = []
        self.failed: list[str] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[LiveTraffic]:
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def lap(self) -> tuple[int, float]:
        """Requests since the last lap, and their p99 in milliseconds."""
        waits, self._waits = self._waits, []
        return len(waits), 1000 * statistics.quantiles(waits, n=100)[98] if len(waits) > 1 else 0.0

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            due = time.monotonic()
            while True:
                group.create_task(self._ask(session))
                due += self._pause_s
                await asyncio.sleep(due - time.monotonic())

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        started = time.monotonic()
        try:
            async with session.post(self._url, json={"data": [{"id": "live", "text": "live"}]}) as answer:
                if answer.status != 200:
                    self.failed.append(f"HTTP {answer.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed.append(repr(error))
        self._waits.append(time.monotonic() - started)


def resident_mib() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mib() -> float:
    """Of this process, at any time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
