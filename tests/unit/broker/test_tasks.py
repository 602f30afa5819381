"""Tasks that nobody awaits."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from streamflow.broker.tasks import Tasks


async def test_a_task_lives_and_its_error_is_told(caplog: pytest.LogCaptureFixture) -> None:
    tasks, go = Tasks(logging.getLogger("test"), "it failed"), asyncio.Event()

    async def fail() -> None:
        await go.wait()
        raise ValueError("no")

    tasks.spawn(fail())
    await asyncio.sleep(0)
    gc.collect()
    assert len(tasks) == 1
    go.set()
    while tasks:
        await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.message == "it failed" and record.exc_info is not None and "no" in str(record.exc_info[1])


async def test_all_of_them_are_ended(caplog: pytest.LogCaptureFixture) -> None:
    tasks, ended = Tasks(logging.getLogger("test"), "it failed"), []

    async def work(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    for number in range(3):
        tasks.spawn(work(number))
    await asyncio.sleep(0)
    await tasks.cancel()
    assert sorted(ended) == [0, 1, 2] and not tasks and not caplog.records
