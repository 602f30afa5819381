"""A job from hand-in to results with one key for each role, on a broker that lets nobody do more than that role needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from docarray import BaseDoc, DocList

from streamflow import Executor, requests
from streamflow.broker import codec, jobs, reader, subjects
from streamflow.broker.accounts import settings_for
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import COLUMNS, decode
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node
from streamflow.broker.lifecycle import Stop
from streamflow.broker.permissions import Role
from streamflow.broker.settings import BrokerSettings, WorkerSettings
from streamflow.broker.topology import provision
from streamflow.workers.service import Worker
from tests.permitted import permitted

NUMBER = 200
GRAPH = Graph(
    "shop", (Node("first"), Node("left", needs=("first",)), Node("right", needs=("first",)), Node("last", needs=("left", "right")))
)


class Item(BaseDoc):
    text: str = ""


class Mark(Executor):
    @requests
    def mark(self, docs: DocList[Item], **kwargs: object) -> DocList[Item]:
        for doc in docs:
            doc.text += "+"
        return docs


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[BrokerSettings]:
    with permitted(tmp_path, GRAPH) as settings:
        yield settings


async def inputs() -> AsyncIterator[jobs.Input]:
    for number in range(NUMBER):
        text = str(number) if number else "x" * 700_000
        yield jobs.Input(COLUMNS, bytes(codec.encode(DocList[Item]([Item(text=text)]), COLUMNS)))


async def test_a_job_runs_and_its_results_are_read(settings: BrokerSettings, caplog: pytest.LogCaptureFixture) -> None:
    roles = {role: await Bus.connect(settings_for(settings, role, "shop"), role) for role in (Role.PROVISIONER, Role.CLIENT, Role.READER)}
    await provision(roles[Role.PROVISIONER], GRAPH, settings)
    stop = Stop()
    workers = [
        asyncio.create_task(Worker(WorkerSettings(**settings.model_dump(), flow="shop", name=name), Mark, None, None).main(stop))
        for name in GRAPH.names
    ]
    client = roles[Role.CLIENT]
    job = await jobs.submit(client, jobs.Order("shop", "/mark"), inputs())
    async with asyncio.timeout(40):
        while (await jobs.progress(client, job)).state is not jobs.State.DONE:
            await asyncio.sleep(0.05)
    found = []
    async with aclosing(reader.read(roles[Role.READER], subjects.results_stream("shop"), subjects.result("shop", f"{job.id}.*"))) as stored:
        async for message in stored:
            found.append(decode(message.payload))
    assert len(found) == NUMBER and {envelope.status.code for envelope in found} == {Code.OK}
    stop.set("test over")
    await asyncio.gather(*workers)
    for bus in roles.values():
        await bus.close()
    assert "permissions violation" not in caplog.text.lower()
