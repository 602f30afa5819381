"""Kept answers, the journal and dead letters with one key for each role, on a broker that lets nobody do more than that role needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from docarray import BaseDoc, DocList

from streamflow import Executor, requests
from streamflow.broker import dead_letters, jobs, reader, subjects
from streamflow.broker.accounts import settings_for
from streamflow.broker.bus import Bus
from streamflow.broker.dead_letters import Retried
from streamflow.broker.envelope import JSON
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Journal, Node
from streamflow.broker.lifecycle import Stop
from streamflow.broker.permissions import Role
from streamflow.broker.settings import BrokerSettings, WorkerSettings
from streamflow.broker.topology import provision
from streamflow.gateway.dispatch import Call, Dispatcher
from streamflow.workers.service import Worker
from tests.permitted import permitted
from tests.waiting import eventually

GRAPH = Graph("shop", (Node("mark"),), Journal(keep_s=60))


class Item(BaseDoc):
    text: str = ""


class Mark(Executor):
    repaired = False

    @requests
    def mark(self, docs: DocList[Item], **kwargs: object) -> DocList[Item]:
        if docs[0].text == "bad" and not Mark.repaired:
            raise ValueError("bad")
        return DocList[Item]([Item(text=doc.text + "+") for doc in docs])


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[BrokerSettings]:
    with permitted(tmp_path, GRAPH) as settings:
        yield settings


@asynccontextmanager
async def connected(settings: BrokerSettings, role: Role) -> AsyncIterator[Bus]:
    """A connection that must not have tried anything that its role may not do."""
    bus = await Bus.connect(settings_for(settings, role, "shop"), role)
    yield bus
    forbidden = bus.forbidden
    await bus.close()
    assert not forbidden


async def inputs(*texts: str) -> AsyncIterator[jobs.Input]:
    for text in texts:
        yield jobs.Input(JSON, json.dumps({"data": [{"text": text}]}).encode())


async def test_each_role_does_its_part(settings: BrokerSettings, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        connected(settings, Role.PROVISIONER) as deployer,
        connected(settings, Role.GATEWAY) as gateway,
        connected(settings, Role.CLIENT) as client,
        connected(settings, Role.OPERATOR) as operator,
    ):
        await provision(deployer, GRAPH, settings)
        stop = Stop()
        worker = asyncio.create_task(Worker(WorkerSettings(**settings.model_dump(), flow="shop", name="mark"), Mark, None, None).main(stop))
        dispatcher = Dispatcher(gateway, GRAPH)
        await dispatcher.start()
        call = Call("/x", b'{"data":[{"text":"a"}]}', JSON, client_id="k", keep_s=60)
        for answer in (await dispatcher.send(call), await dispatcher.send(call), await dispatcher.result("k", wait=True)):
            assert answer.status.code is Code.OK and b"a+" in bytes(answer.body)
        echoed = await dispatcher.send(Call("/x", b'{"data":[]}', JSON, client_id="e", keep_s=60, target_executor="nobody"))
        assert echoed.status.code is Code.OK
        assert await reader.count(operator, subjects.journal_stream("shop")) == 2

        job = await jobs.submit(client, jobs.Order("shop", "/x"), inputs("bad"))

        async def failures() -> int:
            progress = await jobs.progress(client, job)
            return progress.failed if progress.done else -1

        async def is_failed() -> bool:
            return await failures() == 1

        async def is_good() -> bool:
            return await failures() == 0

        await eventually(is_failed, what="the job has failed")
        Mark.repaired = True
        (letter,) = [each async for each in dead_letters.letters(operator, "shop", job=job.id)]
        assert await dead_letters.retry(operator, letter) is Retried.QUEUED
        await eventually(is_good, what="the job has succeeded")
        await dispatcher.close()
        stop.set("test over")
        await worker
    assert "permissions violation" not in caplog.text.lower()
