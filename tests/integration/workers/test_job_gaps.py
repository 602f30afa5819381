"""Jobs that cannot go on as they were handed in: inputs that are gone, no room for results."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow.broker import bucket, dead_letters, job_results, jobs, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.flow import Graph, Node
from streamflow.broker.replay import replay
from streamflow.broker.settings import BrokerSettings
from streamflow.workers.executor import Executor, requests
from tests.running import running
from tests.waiting import eventually

from .test_jobs import Upper, Waits, finished, fresh, inputs, outcomes

__all__ = ["fresh"]  # a fixture for all tests here
pytestmark = pytest.mark.feature("QU-03")


class Grows(Executor):
    @requests
    def grow(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        for doc in docs:
            doc.text = "x" * 20_000


async def lose(bus: Bus, job: jobs.Job, *numbers: int) -> None:
    for number in numbers:
        subject = subjects.job(job.flow, job.id, job.request_id(str(number)))
        assert (await bus.api(f"STREAM.PURGE.{subjects.jobs_stream(job.flow)}", {"filter": subject}))["purged"] == 1


async def test_a_job_ends_without_the_inputs_that_are_gone_and_says_how_many(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("upper"),)), {}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs(*(f"text {n}" for n in range(20))))
        await lose(flow.bus, job, 0, 7, 8, 19)
        assert (await jobs.progress(flow.bus, job)).state is jobs.State.RUNNING
        flow.start_worker("upper", Upper)
        progress = await finished(flow.bus, job)
        assert (progress.total, progress.done, progress.failed, progress.gone) == (20, 16, 0, 4)
        async with asyncio.timeout(10):
            read = [result.number async for result in job_results.results(flow.bus, job)]
        assert sorted(read) == sorted(set(range(20)) - {0, 7, 8, 19})


async def test_failures_that_were_put_back_before_their_replay_came_to_them(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("upper"),)), {"upper": Upper}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("bad 1", "bad 2", "good"))
        assert (await finished(flow.bus, job)).failed == 2
        stop, worker = flow.workers.pop()
        stop.set("nobody feeds")
        await worker
        again = (await replay(flow.bus, flow_name, job_id=job.id, failed_only=True)).job
        letters = [letter async for letter in dead_letters.letters(flow.bus, flow_name, job=job.id)]
        assert await dead_letters.retry(flow.bus, letters[0]) is dead_letters.Retried.QUEUED
        Upper.repaired = True
        flow.start_worker("upper", Upper)
        progress = await finished(flow.bus, again)
        assert (progress.total, progress.done, progress.gone) == (2, 1, 1)


async def test_what_runs_is_not_gone(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("waits"),)), {"waits": Waits}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("a", "b", "c"))

        async def is_fed() -> bool:
            return await jobs.consumer(flow.bus, job) is None

        await eventually(is_fed, what="all inputs are with the workers")
        progress = await jobs.progress(flow.bus, job)
        assert (progress.state, progress.gone, progress.waits) == (jobs.State.RUNNING, 0, "")
        await lose(flow.bus, job, 1)
        assert (await jobs.progress(flow.bus, job)).state is jobs.State.RUNNING
        Waits.gate.set()
        progress = await finished(flow.bus, job)
        await eventually(lambda: len(Waits.runs) == 3)
        assert len(await outcomes(flow.bus, job)) == 3


async def test_a_full_results_store_is_said_and_waited_for(
    settings: BrokerSettings, flow_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    small = settings.model_copy(update={"max_job_bytes": 200_000})
    async with running(small, Graph(flow_name, (Node("grows"),)), {"grows": Grows}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs(*(f"text {n}" for n in range(12))))

        async def says_so() -> bool:
            return "no room for results" in (await jobs.progress(flow.bus, job)).waits

        await eventually(says_so, what="the job's state says why")
        await eventually(lambda: caplog.text.count("waits") >= 3)
        progress = await jobs.progress(flow.bus, job)
        assert progress.state is jobs.State.RUNNING and 0 < progress.done < 12
        await make_room(flow.bus, subjects.results_stream(flow_name))
        progress = await finished(flow.bus, job)
        assert (progress.done, progress.gone, progress.waits) == (12, 0, "")
        told = [record.getMessage() for record in caplog.records if "waits" in record.getMessage()]
        assert len(told) == len(set(told)), "an outcome that waits is told of once"


async def make_room(bus: Bus, stream: str) -> None:
    config = (await bus.api(f"STREAM.INFO.{stream}"))["config"]
    await bus.api(f"STREAM.UPDATE.{stream}", config | {"max_bytes": 10_000_000})


async def test_a_consumer_that_nobody_comes_back_for_goes_by_itself(settings: BrokerSettings, flow_name: str) -> None:
    short = settings.model_copy(update={"keep_s": 1.0})
    async with running(short, Graph(flow_name, (Node("upper"),)), {}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("a"))
        await bucket.delete(flow.bus, flow_name, f"{jobs.ACTIVE}.{job.id}")

        async def is_gone() -> bool:
            return await jobs.consumer(flow.bus, job) is None

        await eventually(is_gone, what="the consumer is gone", timeout_s=20)
