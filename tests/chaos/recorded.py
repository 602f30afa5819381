"""A job that runs beside online requests: its stored results are the third ledger, one for each input."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from streamflow.broker import jobs
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import JSON
from streamflow.broker.settings import BrokerSettings
from tests.e2e.checker import Done, recorded


@dataclass(frozen=True, slots=True)
class JobBeside:
    """`count` inputs of one document each, named j0, j1 ..., for endpoint /run of `flow`."""

    broker_url: str
    job: jobs.Job

    @classmethod
    async def submit(cls, broker_url: str, flow: str, count: int) -> JobBeside:
        bus = await Bus.connect(BrokerSettings(broker_url=broker_url), "job")
        try:
            return cls(broker_url, await jobs.submit(bus, jobs.Order(flow, "/run"), _inputs(count)))
        finally:
            await bus.close()

    async def _ended(self) -> float:
        """Wait until every input has a result. Returns the seconds from its submission."""
        bus = await Bus.connect(BrokerSettings(broker_url=self.broker_url), "job")
        try:
            async with asyncio.timeout(300):
                while (await jobs.progress(bus, self.job)).done < self.job.total:
                    await asyncio.sleep(0.5)
            return time.time() - self.job.created
        finally:
            await bus.close()

    async def all_recorded(self, ledger: Path) -> str:
        """Wait for the end of the job, compare what is stored with what was done; a line of figures."""
        took_s = await self._ended()
        names = [str(number) for number in range(self.job.total)]
        (await recorded(self.broker_url, self.job.id)).check(names)
        attempts = Done.read(ledger).attempts
        invented = [name for name in names if f"j{name}" not in attempts]
        assert not invented, f"{len(invented)} results that nobody worked out, such as {invented[:3]}"
        executions = sum(len(attempts[f"j{name}"]) for name in names)
        return f"job of {len(names)} inputs in {took_s:.1f} s: {executions} executions, each recorded once"


async def _inputs(count: int) -> AsyncIterator[jobs.Input]:
    for number in range(count):
        body = {"data": [{"id": f"j{number}", "text": f"j{number}"}]}
        yield jobs.Input(JSON, json.dumps(body).encode())
