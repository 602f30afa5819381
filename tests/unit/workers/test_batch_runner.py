"""Where batches run: what an executor that is idle takes, and who waits for whom."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow.workers.batch_runner import BatchRunner, runner_for
from streamflow.workers.executions import Execution, Outcome, Output
from streamflow.workers.executor import Executor, dynamic_batching, requests
from streamflow.workers.runner import Runner
from tests.unit.workers.bench import Bench
from tests.waiting import eventually

pytestmark = pytest.mark.feature("DB-04", "DB-08")


class Gate(Executor):
    """Endpoints that wait until they may go on."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calls: list[list[str]] = []
        self.release = threading.Semaphore(0)
        self.arelease = asyncio.Semaphore(0)

    @requests(on="/sync")
    @dynamic_batching(preferred_batch_size=4)
    def sync(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])
        assert self.release.acquire(timeout=20)

    @requests(on="/patient")
    @dynamic_batching(preferred_batch_size=3, timeout=60_000, greedy=False)
    def patient(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])

    @requests(on="/short")
    @dynamic_batching(preferred_batch_size=3, timeout=50, greedy=False)
    def short(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])

    @requests(on="/plain")
    def plain(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])

    @requests(on="/async")
    @dynamic_batching(preferred_batch_size=4)
    async def slow(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])
        await self.arelease.acquire()

    @requests(on="/apatient")
    @dynamic_batching(preferred_batch_size=3, timeout=60_000, greedy=False)
    async def apatient(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])

    @requests(on="/ashort")
    @dynamic_batching(preferred_batch_size=3, timeout=50, greedy=False)
    async def ashort(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        self.calls.append([doc.text for doc in docs])


class Stage:
    """A `BatchRunner` whose outcomes are collected."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.bench = Bench(self.gate)
        self.outcomes: list[tuple[str, Outcome]] = []
        self.turns = 0
        self.runner = BatchRunner(self.bench.invoker, self.bench.processor, self.done, "test")

    def done(self, execution: Execution, outcome: Outcome) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.outcomes.append((execution.envelope.request_id, outcome))

    def submit(self, endpoint: str, *texts: str) -> Execution:
        execution = self.bench.execution(endpoint, *texts)
        self.runner.submit(execution)
        return execution

    def go_on(self, calls: int = 1) -> None:
        self.gate.release.release(calls)
        for _ in range(calls):
            self.gate.arelease.release()

    async def called(self, *calls: list[str]) -> None:
        await eventually(lambda: len(self.gate.calls) >= len(calls), what=f"{calls}, have {self.gate.calls}")
        assert self.gate.calls == list(calls)

    async def ended(self, count: int) -> None:
        await eventually(lambda: len(self.outcomes) >= count, what=f"{count} outcomes, have {self.outcomes}")
        assert len(self.outcomes) == count and all(isinstance(outcome, Output) for _, outcome in self.outcomes)


@pytest.fixture
async def stage() -> Any:
    stage = Stage()
    yield stage
    stage.go_on(100)
    stage.runner.stop()
    await asyncio.to_thread(stage.runner._thread.join, 10)
    assert not stage.runner._thread.is_alive()


@pytest.mark.parametrize("endpoint", ["/sync", "/async"])
async def test_the_idle_executor_takes_what_is_there_and_the_next_batch_gathers_meanwhile(stage: Stage, endpoint: str) -> None:
    stage.submit(endpoint, "a")
    await stage.called(["a"])
    for text in "bcdefg":
        stage.submit(endpoint, text)
    stage.go_on()
    await stage.called(["a"], ["b", "c", "d", "e"])
    stage.go_on()
    await stage.called(["a"], ["b", "c", "d", "e"], ["f", "g"])
    stage.go_on()
    await stage.ended(7)


@pytest.mark.parametrize("endpoint", ["/patient", "/apatient"])
async def test_without_greed_a_full_batch_does_not_wait_for_the_timeout(stage: Stage, endpoint: str) -> None:
    stage.submit(endpoint, "a")
    stage.submit(endpoint, "b", "c", "d")
    await stage.called(["a", "b", "c"])
    assert len(stage.outcomes) <= 1
    stage.submit("/plain", "p")
    await stage.called(["a", "b", "c"], ["p"])
    stage.runner.hurry()
    await stage.called(["a", "b", "c"], ["p"], ["d"])
    await stage.ended(3)


@pytest.mark.feature("DB-05")
@pytest.mark.parametrize("endpoint", ["/short", "/ashort"])
async def test_without_greed_the_oldest_request_waits_at_most_the_timeout(stage: Stage, endpoint: str) -> None:
    started = time.monotonic()
    stage.submit(endpoint, "a")
    stage.submit(endpoint, "b")
    await stage.ended(2)
    assert 0.05 <= time.monotonic() - started < 5 and stage.gate.calls == [["a", "b"]]


@pytest.mark.feature("DB-10")
async def test_stopping_ends_what_waits_first(stage: Stage) -> None:
    stage.submit("/sync", "a")
    await stage.called(["a"])
    stage.submit("/patient", "b")
    stage.submit("/plain", "c")
    stage.runner.stop()
    stage.go_on()
    await stage.ended(3)
    assert stage.gate.calls == [["a"], ["b"], ["c"]]


async def test_what_came_first_runs_first(stage: Stage) -> None:
    stage.submit("/sync", "a")
    await stage.called(["a"])
    stage.submit("/plain", "b")
    stage.submit("/sync", "c")
    stage.submit("/plain", "d")
    stage.submit("/sync", "e")
    stage.go_on(2)
    await stage.ended(5)
    assert stage.gate.calls == [["a"], ["b"], ["c", "e"], ["d"]]


async def test_endpoints_that_nobody_has_pass_through(stage: Stage) -> None:
    execution = stage.submit("/unknown", "a")
    await stage.ended(1)
    assert stage.outcomes[0][0] == execution.envelope.request_id


async def test_all_of_a_batch_comes_back_in_one_turn_of_the_loop(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    wakes: list[int] = []
    wake: Callable[[], None] = stage.runner._wake
    monkeypatch.setattr(stage.runner, "_wake", lambda: (wakes.append(1), wake()))
    stage.submit("/sync", "a")
    await stage.called(["a"])
    for text in "bcde":
        stage.submit("/sync", text)
    stage.go_on()
    await stage.ended(1)
    stage.go_on()
    await stage.ended(5)
    assert len(wakes) == 2


async def test_an_async_call_is_abandoned_when_the_worker_stops(stage: Stage) -> None:
    stage.submit("/async", "a")
    await stage.called(["a"])
    stage.runner.stop()
    await eventually(lambda: stage.runner._lanes["/async"]._task is None)
    assert not stage.outcomes


async def test_an_executor_without_batching_has_the_plain_runner() -> None:
    class Plain(Executor):
        @requests
        def plain(self, docs: DocList[TextDoc], **kwargs: Any) -> None: ...

    bench = Bench(Plain())
    runner = runner_for(bench.invoker, bench.processor, lambda execution, outcome: None, "test")
    assert type(runner) is Runner and runner.ahead == 0
    runner.hurry()
    runner.stop()
    assert type(runner_for(Bench(Gate()).invoker, bench.processor, lambda execution, outcome: None, "test")) is BatchRunner
