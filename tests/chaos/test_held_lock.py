"""P36, the hard part: a call in C that never lets go of the interpreter's lock stops every thread of its worker, and is no death."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from streamflow.broker import accounts, subjects
from streamflow.broker.accounts import AUTH_FILE, settings_for
from streamflow.broker.announce import Announcement
from streamflow.broker.bus import Bus
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node
from streamflow.broker.permissions import Role
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.gateway.dispatch import Call, Dispatcher
from streamflow.workers.companion import NAME
from tests.e2e.programs import Program, Programs, addresses_of, flow_file, is_over
from tests.waiting import eventually

ACK_WAIT_S = 0.8
HOLDS = """
import ctypes, os
from streamflow import Executor, requests

class Holds(Executor):
    '''The first call holds the lock for `seconds`, later ones end at once.'''

    def __init__(self, ledger, seconds, **kwargs):
        super().__init__(**kwargs)
        self.ledger, self.seconds = ledger, seconds

    @requests
    def work(self, docs, **kwargs):
        with open(self.ledger, "a+") as ledger:
            ledger.seek(0)
            is_first = not ledger.read()
            ledger.write(f"{os.getpid()} ")
        if is_first:
            ctypes.PyDLL(None).usleep(int(self.seconds * 1e6))  # CDLL would let go of it
"""


def holds(programs: Programs, seconds: float) -> dict[str, Any]:
    """The executor, as YAML has it."""
    module = programs.folder / "holds.py"
    module.write_text(HOLDS)
    return {"jtype": "Holds", "py_modules": [str(module)], "with": {"ledger": str(programs.folder / "ledger"), "seconds": seconds}}


def runs(programs: Programs) -> list[int]:
    """The pids of the workers that were called, in order."""
    ledger = programs.folder / "ledger"
    return [int(word) for word in ledger.read_text().split()] if ledger.exists() else []


@dataclass
class Held:
    """A flow of one executor, with workers that are processes."""

    programs: Programs
    settings: BrokerSettings
    flow: str
    bus: Bus
    dispatcher: Dispatcher

    @property
    def runs(self) -> list[int]:
        return runs(self.programs)

    def worker(self, seconds: float) -> Program:
        return self.programs.streamflow(
            "worker", "--uses", json.dumps(holds(self.programs, seconds)), "--flow", self.flow, "--name", "e",
            STREAMFLOW_BROKER_URL=self.settings.broker_url, STREAMFLOW_BROKER_CREDENTIALS=self.settings.broker_credentials or "",
        )  # fmt: skip

    async def ready(self, count: int) -> None:
        await eventually(lambda: self.dispatcher.catalog.ready_counts()["e"] == count, 30, f"{count} workers")

    async def called(self) -> asyncio.Task[Code]:
        """A request whose call has begun."""

        async def send() -> Code:
            return (await self.dispatcher.send(Call("/"))).status.code

        task = asyncio.create_task(send())
        await eventually(lambda: self.runs, 20, "the call")
        return task

    def first(self, workers: list[Program]) -> Program:
        """The worker that has the call."""
        return next(worker for worker in workers if worker.pid == self.runs[0])


@asynccontextmanager
async def held(programs: Programs, settings: BrokerSettings, node: Node, flow: str) -> AsyncIterator[Held]:
    graph = Graph(flow, (node,))
    deployer = await Bus.connect(settings_for(settings, Role.PROVISIONER, flow), "deployer")
    await provision(deployer, graph, settings)
    bus = await Bus.connect(settings_for(settings, Role.GATEWAY, flow), "gateway")
    dispatcher = Dispatcher(bus, graph)
    await dispatcher.start()
    yield Held(programs, settings, flow, bus, dispatcher)
    await dispatcher.close()
    await bus.close()
    await deployer.close()


def companions(program: Program) -> list[psutil.Process]:
    return [process for process in psutil.Process(program.pid).children() if not is_over(process) and process.name() == NAME]


@pytest.mark.slow
async def test_it_runs_once_and_its_worker_stays_known(programs: Programs, settings: BrokerSettings, flow_name: str) -> None:
    async with held(programs, settings, Node("e", ack_wait_s=ACK_WAIT_S), flow_name) as flow:
        [flow.worker(10 * ACK_WAIT_S) for _ in range(2)]
        await flow.ready(2)
        heard: list[int] = []
        await flow.bus.listen(
            subjects.control(flow_name, "announce"), lambda _s, _r, _h, payload: heard.append(Announcement.decode(payload).pid)
        )
        call = await flow.called()
        heard.clear()
        assert await asyncio.wait_for(call, 30) is Code.OK
        assert len(flow.runs) == 1
        assert flow.runs[0] in heard, "it would count as gone, and its requests be refused"


@pytest.mark.slow
async def test_the_worker_s_own_key_is_enough(programs: Programs, tmp_path: Path) -> None:
    node = Node("e", ack_wait_s=ACK_WAIT_S)
    accounts.write(tmp_path / "keys", "default", [Graph("shop", (node,))])
    broker = EmbeddedBroker(tmp_path / "broker", auth=tmp_path / "keys" / AUTH_FILE)
    broker.start()
    settings = BrokerSettings(broker_url=broker.url, broker_credentials=str(tmp_path / "keys" / "default"), connect_wait_s=5)
    try:
        async with held(programs, settings, node, "shop") as flow:
            workers = [flow.worker(5 * ACK_WAIT_S) for _ in range(2)]
            await flow.ready(2)
            assert await asyncio.wait_for(await flow.called(), 30) is Code.OK
            assert len(flow.runs) == 1
            assert not [worker.output for worker in workers if "iolation" in worker.output]
    finally:
        broker.stop()


async def test_a_stopped_worker_is_dead_all_the_same(programs: Programs, settings: BrokerSettings, flow_name: str) -> None:
    async with held(programs, settings, Node("e", ack_wait_s=ACK_WAIT_S), flow_name) as flow:
        workers = [flow.worker(60) for _ in range(2)]
        await flow.ready(2)
        call = await flow.called()
        await asyncio.to_thread(flow.first(workers).wait_for, "kept alive from outside")
        assert len(flow.runs) == 1
        flow.first(workers).send(signal.SIGSTOP)
        assert await asyncio.wait_for(call, 15) is Code.OK
        assert len(set(flow.runs)) == 2


async def test_a_call_past_its_limit_ends_the_worker_and_is_handed_back(
    programs: Programs, settings: BrokerSettings, flow_name: str
) -> None:
    async with held(programs, settings, Node("e", ack_wait_s=12.0, timeout_run_s=0.5), flow_name) as flow:
        workers = [flow.worker(60) for _ in range(2)]
        await flow.ready(2)
        call = await flow.called()
        first = flow.first(workers)
        assert await asyncio.to_thread(first.wait, 15) == 1
        died = time.monotonic()
        assert "Timeout" in first.output and "holds.py" in first.output, "the traceback says where it was"
        assert await asyncio.wait_for(call, 30) is Code.OK
        assert time.monotonic() - died < 6.0, "it waited until the broker missed its worker"
        assert len(set(flow.runs)) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_companion_goes_with_its_worker_and_not_before(
    programs: Programs, settings: BrokerSettings, flow_name: str, number: signal.Signals
) -> None:
    async with held(programs, settings, Node("e"), flow_name) as flow:
        worker = flow.worker(0.0)
        await flow.ready(1)
        [companion] = companions(worker)
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            companion.send_signal(ignored)
        assert await asyncio.wait_for(await flow.called(), 30) is Code.OK
        assert not is_over(companion)
        worker.send(number)
        await asyncio.to_thread(worker.wait)
        await eventually(lambda: is_over(companion), 5, "the end of the companion")


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
async def test_all_workers_of_a_flow_have_one_companion_that_comes_again(programs: Programs, start: str) -> None:
    file = flow_file(programs.folder, "held", [{"name": "e", "replicas": 2, "uses": holds(programs, 5.0)}])
    program = programs.streamflow("flow", "--uses", str(file), STREAMFLOW_ACK_WAIT_S="1.2", STREAMFLOW_START=start)
    url = f"http://{addresses_of(program)['http']}/run"
    [companion] = companions(program)
    companion.kill()
    await eventually(lambda: companions(program), 20, "another companion")
    async with aiohttp.ClientSession() as session, session.post(url, json={"data": [{"text": ""}]}) as response:
        assert response.status == 200
    assert len(runs(programs)) == 1
    assert len(companions(program)) == 1
    program.stop()
