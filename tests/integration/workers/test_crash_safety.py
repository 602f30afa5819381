"""What must not happen: a request neither answered nor settled, a body that is gone while somebody needs it, a loop without end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow.broker import bucket, codec, jobs, reader, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import COLUMNS, JSON, Envelope, decode, encode
from streamflow.broker.errors import Code, Unavailable
from streamflow.broker.flow import Graph, Node, Polling
from streamflow.broker.lease import Lease
from streamflow.broker.replay import replay
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.gateway.dispatch import Call
from streamflow.workers.executor import Executor, requests
from streamflow.workers.feeder import Feeder
from streamflow.workers.outbox import Outbox
from tests.running import Running, running
from tests.waiting import eventually

LARGE = 1_500_000


class Passes(Executor):
    @requests
    async def go(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        return None


class Verbose(Executor):
    @requests
    def fail(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        raise ValueError("x" * 300_000)


class Held(Executor):
    gate = asyncio.Event()

    @requests
    async def hold(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        await Held.gate.wait()


@pytest.fixture(autouse=True)
def fresh() -> None:
    Held.gate = asyncio.Event()


async def ask(flow: Running, body: bytes, content_type: str = JSON, **options: Any) -> Envelope:
    return await asyncio.wait_for(flow.dispatcher.send(Call("/x", body, content_type, **options)), 20)


def large() -> bytes:
    return codec.encode(DocList[TextDoc]([TextDoc(text="x" * LARGE)]), COLUMNS)


async def given(*bodies: bytes) -> AsyncIterator[jobs.Input]:
    for body in bodies:
        yield jobs.Input(JSON, body)


def text(value: str) -> bytes:
    return json.dumps({"data": [{"text": value}]}).encode()


async def finished(bus: Bus, job: jobs.Job) -> jobs.Progress:
    async def is_done() -> bool:
        return (await jobs.progress(bus, job)).state is jobs.State.DONE

    await eventually(is_done, what="the job is done", timeout_s=15)
    return await jobs.progress(bus, job)


async def outcome(bus: Bus, job: jobs.Job, number: int = 0) -> Envelope:
    found = await bus.direct_get(subjects.results_stream(job.flow), subjects.result(job.flow, f"{job.id}.{number}"))
    assert found is not None
    return decode(found)


async def has_worked_off(flow: Running, stream: str, durable: str) -> bool:
    """Whether what reads at this place has read, and acknowledged, all that came."""
    found = await flow.bus.consumer(stream, durable)
    return found is not None and found["ack_floor"]["stream_seq"] > 0 and not found["num_ack_pending"] + found["num_pending"]


# bodies that somebody still needs


async def test_parallel_roots_each_have_the_large_body(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("a"), Node("b"), Node("join", needs=("a", "b"))))
    async with running(settings, graph, {"a": Passes, "join": Passes}) as flow:
        waiting = asyncio.create_task(ask(flow, large(), COLUMNS, accept=COLUMNS))
        await eventually(
            partial(has_worked_off, flow, subjects.work_stream(flow_name, "a"), subjects.work_durable("now")), what="`a` is done"
        )
        flow.start_worker("b", Passes)
        answer = await waiting
        assert answer.status.code is Code.OK, answer.status


async def test_shards_that_all_answer_each_have_the_large_body(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("a"), Node("b", needs=("a",), shards=2, polling={"*": Polling.ALL})))
    async with running(settings, graph, {"a": Passes}) as flow:
        flow.start_worker("b", Passes, shard=0)
        waiting = asyncio.create_task(ask(flow, large(), COLUMNS, accept=COLUMNS))
        place = subjects.fan_out_stream(flow_name, "b"), subjects.shard_durable(0)
        await eventually(partial(has_worked_off, flow, *place), what="the first shard is done")
        flow.start_worker("b", Passes, shard=1)
        answer = await waiting
        assert answer.status.code is Code.OK, answer.status


async def test_large_parts_are_deleted_when_they_have_met(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("a"), Node("b", needs=("a",)), Node("c", needs=("a",)), Node("join", needs=("b", "c"))))
    async with running(settings, graph, {name: Passes for name in ("a", "b", "c", "join")}) as flow:
        assert (await ask(flow, large(), COLUMNS, accept=COLUMNS)).status.code is Code.OK

        async def is_empty() -> bool:
            return not (await flow.bus.api(f"STREAM.INFO.{subjects.blob_stream(flow_name)}"))["state"]["messages"]

        await eventually(is_empty, what="no large body is left")


async def test_large_inputs_run_again_in_another_flow(settings: BrokerSettings, flow_name: str) -> None:
    other = f"{flow_name}b"
    one, two = (Graph(name, (Node("a"),)) for name in (flow_name, other))
    async with running(settings, one, {"a": Passes}) as flow, running(settings, two, {"a": Passes}):
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), given(text("y" * LARGE)))
        await finished(flow.bus, job)
        again = (await replay(flow.bus, flow_name, job_id=job.id, to_flow=other)).job
        progress = await finished(flow.bus, again)
        assert progress.failed == 0, (await outcome(flow.bus, again)).status


async def test_large_bodies_of_a_job_wait_for_room(settings: BrokerSettings, flow_name: str, caplog: pytest.LogCaptureFixture) -> None:
    small = settings.model_copy(update={"max_queue_bytes": 2 << 20})
    graph = Graph(flow_name, (Node("a"), Node("b", needs=("a",))))
    async with running(small, graph, {"a": Passes, "b": Held}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), given(*(text("y" * LARGE) for _ in range(6))))

        async def is_full() -> bool:
            return int((await flow.bus.api(f"STREAM.INFO.{subjects.blob_stream(flow_name)}"))["state"]["bytes"]) > 3 << 20

        await eventually(is_full, what="there is no more room")
        await eventually(lambda: "its body waits" in caplog.text, what="a body waits for room")
        Held.gate.set()
        assert (await finished(flow.bus, job)).failed == 0


# outcomes


async def test_an_error_too_long_for_a_header_is_answered_and_recorded(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("a"),)), {"a": Verbose}) as flow:
        answer = await ask(flow, text("a"), parameters={"long": "p" * 250_000})
        assert (answer.status.code, answer.status.exception) == (Code.EXECUTOR_ERROR, "ValueError")
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), given(text("a")))
        assert (await finished(flow.bus, job)).failed == 1


async def test_an_input_that_no_executor_takes_and_that_cannot_be_echoed_fails(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("a"),)), {"a": Passes}) as flow:
        order = jobs.Order(flow_name, "/x", target_executor="nobody")
        job = await jobs.submit(flow.bus, order, given(text("a"), b"{no json"))
        assert (await finished(flow.bus, job)).failed == 1
        assert (await outcome(flow.bus, job, 1)).status.code is Code.INVALID_ARGUMENT


async def test_an_outcome_is_recorded_again_when_the_one_before_was_taken_back(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    """As by `dlq retry`: the failure is removed between another attempt's "taken" and its look at what is there."""
    graph = Graph(flow_name, (Node("a"),))
    await provision(bus, graph, settings)
    record = "online.r1"
    stream, subject = subjects.results_stream(flow_name), subjects.result(flow_name, record)
    sequence = await bus.store_first_wait(subject, encode(Envelope("r1", flow_name, record=record)))
    tasks: list[asyncio.Task[None]] = []

    class Removing(Bus):
        """The real bus; what is looked at is removed first."""

        async def direct_get(self, stream: str, subject: str) -> bytes | None:
            await bus.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
            return await super().direct_get(stream, subject)

    second = await Removing.connect(settings, "test")
    outbox = Outbox(second, None, lambda way: tasks.append(asyncio.ensure_future(way)))  # type: ignore[arg-type]
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    outbox.answer(Envelope("r1", flow_name, record=record, content_type=JSON, body=b"[]"), done.set_result)
    assert await asyncio.wait_for(done, 5) is None
    stored = await bus.direct_get(stream, subject)
    assert stored is not None and bytes(decode(stored).body) == b"[]"
    await second.close()


async def test_what_waits_for_its_retry_runs_after_the_flow_has_no_retries_any_more(settings: BrokerSettings, flow_name: str) -> None:
    before = Graph(flow_name, (Node("a", retry_on=("ValueError",), backoff_s=3.0),))
    async with running(settings, before, {"a": Verbose}) as flow:
        waiting = asyncio.create_task(ask(flow, text("a")))

        async def waits() -> bool:
            return bool((await flow.bus.api(f"STREAM.INFO.{subjects.retry_stream(flow_name, 'a')}"))["state"]["messages"])

        await eventually(waits, what="the next attempt waits")
        stop, worker = flow.workers.pop()
        stop.set("replaced")
        await worker
        assert await waits()
        await provision(flow.bus, Graph(flow_name, (Node("a"),)), settings)
        flow.start_worker("a", Passes)
        assert (await waiting).status.code is Code.OK


# waiting


async def test_a_feeder_without_the_lease_does_not_spin(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    await provision(bus, Graph(flow_name, (Node("a"),)), settings)
    assert await Lease(bus, flow_name, "feeder", "somebody else").hold()
    await bucket.put(bus, flow_name, f"{jobs.ACTIVE}.j1", {})
    asked: list[bytes] = []
    second = await Bus.connect(settings, "test")
    await second.listen(f"$JS.API.STREAM.INFO.{subjects.bucket_stream(flow_name)}", lambda subject, r, h, p: asked.append(subject))
    await second.flush()
    feeder = Feeder(bus, flow_name, "me", None)  # type: ignore[arg-type]
    await feeder.start()
    await eventually(lambda: asked)
    bus.publish(subjects.control(flow_name, "job"), b"j1")
    await asyncio.sleep(0.5)
    await feeder.stop()
    await second.close()
    assert 1 < len(asked) < 5


async def test_a_reader_leaves_nothing_with_its_connection(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    await provision(bus, Graph(flow_name, (Node("a"),)), settings)
    before = len(bus._on_reconnect)
    for _ in range(3):
        assert [message async for message in reader.read(bus, subjects.results_stream(flow_name), "sf.>")] == []
    assert len(bus._on_reconnect) == before


async def test_a_request_of_the_bus_can_always_be_cancelled(bus: Bus) -> None:
    """`asyncio.wait_for` before 3.12 swallows a cancellation that comes together with the answer."""
    task = asyncio.create_task(bus.api("INFO"))
    while not len(bus._questions):
        await asyncio.sleep(0)
    (number,) = bus._questions._open
    bus._questions.heard(bus._questions.inbox.encode() + b"." + number, b"", None, b"{}")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not bus._questions


async def test_a_flush_that_was_given_up_ends_no_connection(bus: Bus) -> None:
    reading = bus._client._reading_task
    for _ in range(3):
        given_up = asyncio.create_task(bus.flush())
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
    await bus.flush()
    assert reading is not None and reading is bus._client._reading_task and not reading.done()


async def test_an_empty_cancellation_cancels_nobody(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("a"),)), {"a": Held}) as flow:
        waiting = asyncio.create_task(ask(flow, text("a")))
        await eventually(lambda: flow.bus.connected)
        await asyncio.sleep(0.1)
        flow.bus.publish(subjects.control(flow_name, "cancel"), b"")
        await flow.bus.flush()
        await asyncio.sleep(0.1)
        Held.gate.set()
        assert (await waiting).status.code is Code.OK


async def test_an_input_that_cannot_be_read_now_is_read_later(settings: BrokerSettings, flow_name: str) -> None:
    """The failures of a job are run again while the stream of their inputs does not answer."""
    from streamflow.workers import feeder

    async with running(settings, Graph(flow_name, (Node("a"),)), {"a": Verbose}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), given(text("a")))
        await finished(flow.bus, job)
        real, calls = feeder._Feed._input, []

        async def away_once(self: Any, name: str) -> bytes:
            calls.append(name)
            if len(calls) == 1:
                raise Unavailable("no answer from the stream")
            return await real(self, name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(feeder._Feed, "_input", away_once)
            patch.setattr(feeder, "IDLE_S", 0.2)
            again = (await replay(flow.bus, flow_name, job_id=job.id, failed_only=True)).job
            await finished(flow.bus, again)
        assert (await outcome(flow.bus, again)).status.code is Code.EXECUTOR_ERROR
        assert len(calls) > 1


async def test_what_streamflow_itself_raises_on_the_way_out_is_an_answer(settings: BrokerSettings, flow_name: str) -> None:
    from streamflow.workers import reducer

    graph = Graph(flow_name, (Node("a"), Node("b"), Node("join", needs=("a", "b"))))
    async with running(settings, graph, {name: Passes for name in ("a", "b", "join")}) as flow:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reducer, "merge_parts", lambda *args: 1 // 0)
            answer = await ask(flow, text("a"), deadline=time.time() + 5)
        assert answer.status.code is Code.INTERNAL and "ZeroDivisionError" in answer.status.description
