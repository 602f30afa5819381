"""Jobs: stored inputs run through the flow's bulk lanes, one recorded outcome each."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow.broker import bucket, codec, jobs, reader, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import JSON, MAX_HEADER_BYTES, Envelope, decode, encode
from streamflow.broker.errors import AlreadyExists, Code, InvalidInput, NotFound, Overloaded
from streamflow.broker.flow import Graph, Node
from streamflow.broker.replay import Range, replay
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.workers import feeder
from streamflow.workers.executor import Executor, dynamic_batching, requests
from tests.running import Running, running
from tests.waiting import eventually


class Upper(Executor):
    """Counts its runs; refuses "bad" until it is repaired."""

    runs: Counter[str] = Counter()
    repaired = False
    gate = asyncio.Event()

    @requests
    def upper(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        for doc in docs:
            Upper.runs[doc.text] += 1
            if doc.text.startswith("bad") and not Upper.repaired:
                raise ValueError(f"cannot read {doc.text}")
            doc.text = doc.text.upper()


class Tail(Executor):
    @requests
    async def tail(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        for doc in docs:
            doc.text += "!"


class Waits(Executor):
    gate = asyncio.Event()
    runs: list[str] = []

    @requests
    async def wait(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        Waits.runs.extend(doc.text for doc in docs)
        await Waits.gate.wait()


class Batches(Waits):
    """Holds enough for two batches, of whatever endpoint."""

    @requests(on="/batch")
    @dynamic_batching(preferred_batch_size=200, timeout=1)
    async def batch(self, docs: DocList[TextDoc], **kwargs: Any) -> None: ...


@pytest.fixture(autouse=True)
def fresh() -> None:
    Upper.runs = Counter()
    Upper.repaired = False
    Waits.gate = asyncio.Event()
    Waits.runs = []


async def inputs(*texts: str) -> AsyncIterator[jobs.Input]:
    for text in texts:
        yield jobs.Input(JSON, json.dumps({"data": [{"text": text}]}).encode())


async def is_empty(flow: Running, executor: str) -> bool:
    """Whether nothing is queued for it."""
    return not (await flow.bus.api(f"STREAM.INFO.{subjects.work_stream(flow.graph.flow, executor)}"))["state"]["messages"]


def text_of(answer: Envelope) -> str:
    (doc,) = codec.decode(answer.body, answer.content_type, TextDoc).docs
    return str(doc.text)


async def outcomes(bus: Bus, job: jobs.Job) -> dict[int, Envelope]:
    """Recorded outcomes by input number; each input once."""
    found: dict[int, Envelope] = {}
    stream, mine = subjects.results_stream(job.flow), subjects.result(job.flow, f"{job.id}.*")
    async for message in reader.read(bus, stream, mine):
        number = int(message.subject.rpartition(".")[2])
        assert number not in found
        found[number] = decode(message.payload)
    return found


async def finished(bus: Bus, job: jobs.Job) -> jobs.Progress:
    async def state() -> bool:
        return (await jobs.progress(bus, job)).state is jobs.State.DONE

    await eventually(state, what="the job is done", timeout_s=30)
    return await jobs.progress(bus, job)


def chain(name: str) -> Graph:
    return Graph(name, (Node("upper"), Node("tail", needs=("upper",))))


async def test_each_input_gets_one_outcome_and_nobody_has_to_wait_for_it(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name), {}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs(*(f"text {n}" for n in range(500)), "bad one"))
        assert (await jobs.progress(flow.bus, job)).state is jobs.State.RUNNING
        flow.start_worker("upper", Upper)
        flow.start_worker("tail", Tail)
        progress = await finished(flow.bus, job)
        assert (progress.total, progress.done, progress.failed) == (501, 501, 1)
        found = await outcomes(flow.bus, job)
        assert [text_of(found[n]) for n in range(500)] == [f"TEXT {n}!" for n in range(500)]
        assert found[500].status.code is Code.EXECUTOR_ERROR and "cannot read bad one" in found[500].status.description
        assert set(Upper.runs.values()) == {1}
        await nothing_left_to_feed(flow)


async def nothing_left_to_feed(flow: Running) -> None:
    async def is_clear() -> bool:
        info = await flow.bus.api(f"STREAM.INFO.{subjects.jobs_stream(flow.graph.flow)}")
        return not info["state"]["consumer_count"] and not await jobs.active(flow.bus, flow.graph.flow)

    await eventually(is_clear, what="no feeding consumer is left", timeout_s=10)


async def test_branches_and_shards_in_a_job(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(
        flow_name,
        (Node("a"), Node("b", shards=2, polling={"*": "ALL"}), Node("join", needs=("a", "b"))),
    )
    async with running(settings, graph, {"a": Tail, "join": Tail}) as flow:
        for shard in range(2):
            flow.start_worker("b", Tail, shard=shard)
        await flow.ready()
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs(*(f"t{n}" for n in range(100))))
        progress = await finished(flow.bus, job)
        assert progress.failed == 0
        found = await outcomes(flow.bus, job)
        assert len(found) == 100 and all(text_of(found[n]).startswith(f"t{n}!") for n in range(100))


async def test_the_same_key_is_the_same_job(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name), {"upper": Upper, "tail": Tail}) as flow:
        order = jobs.Order(flow_name, "/x", key="monday")
        several = await asyncio.gather(*(jobs.submit(flow.bus, order, inputs("a", "b", "c")) for _ in range(5)))
        assert len({job.id for job in several}) == 1
        await finished(flow.bus, several[0])
        again = await jobs.submit(flow.bus, order, inputs("a", "b", "c"))
        assert again.id == several[0].id and (await jobs.progress(flow.bus, again)).done == 3
        with pytest.raises(AlreadyExists, match="'monday'"):
            await jobs.submit(flow.bus, order, inputs("a", "b", "other"))
        with pytest.raises(AlreadyExists, match="'monday'"):
            await jobs.submit(flow.bus, order, inputs("a", "b"))
        assert set(Upper.runs.values()) == {1}


async def test_an_interrupted_submit_goes_on_under_its_key(settings: BrokerSettings, flow_name: str) -> None:
    async def broken() -> AsyncIterator[jobs.Input]:
        async for one in inputs("a", "b"):
            yield one
        await eventually(both_stored, what="what was read is stored")
        raise OSError("the disk with the inputs is gone")

    async with running(settings, chain(flow_name), {"upper": Upper, "tail": Tail}) as flow:

        async def both_stored() -> bool:
            return await reader.count(flow.bus, subjects.jobs_stream(flow_name)) == 2

        order = jobs.Order(flow_name, "/x", key="k")
        with pytest.raises(OSError, match="disk"):
            await jobs.submit(flow.bus, order, broken())
        assert await jobs.ids(flow.bus, flow_name) == []
        with pytest.raises(AlreadyExists, match="input 1 differs"):
            await jobs.submit(flow.bus, order, inputs("a", "x", "c"))
        job = await jobs.submit(flow.bus, order, inputs("a", "b", "c"))
        assert (await finished(flow.bus, job)).done == 3
        assert Upper.runs == {"a": 1, "b": 1, "c": 1}


async def test_a_paused_job_feeds_nothing_and_a_cancelled_one_is_dropped(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("waits"),)), {"waits": Waits}, concurrency=4) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs(*(f"t{n}" for n in range(2000))))
        await eventually(lambda: len(Waits.runs) >= 4, what="the job runs")
        await jobs.pause(flow.bus, job)
        assert (await jobs.progress(flow.bus, job)).state is jobs.State.PAUSED
        await jobs.resume(flow.bus, job)
        assert (await jobs.progress(flow.bus, job)).state is jobs.State.RUNNING
        await jobs.cancel(flow.bus, job)
        assert (await jobs.progress(flow.bus, job)).state is jobs.State.CANCELLED
        Waits.gate.set()
        await nothing_left_to_feed(flow)
        await eventually(lambda: is_empty(flow, "waits"), what="what was queued is dropped")
        assert len(Waits.runs) < 100
        with pytest.raises(NotFound, match=job.id):
            await jobs.pause(flow.bus, job)


async def test_a_cancelled_job_gives_back_all_the_room_that_it_had(
    settings: BrokerSettings, flow_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Hundreds wait in the worker. They are dropped one after the other, not each inside the one before."""
    async with running(settings, Graph(flow_name, (Node("batches"),)), {"batches": Batches}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs(*(f"t{n}" for n in range(2000))))
        queue = f"CONSUMER.INFO.{subjects.work_stream(flow_name, 'batches')}.{subjects.work_durable('bulk')}"

        async def many_wait() -> bool:
            return int((await flow.bus.api(queue))["num_ack_pending"]) > 500

        await eventually(many_wait, what="the worker holds many")
        await jobs.cancel(flow.bus, job)
        await eventually(lambda: is_empty(flow, "batches"), what="what was queued is dropped")
        stop, task = flow.workers[0]
        stop.set("test over")
        async with asyncio.timeout(10):  # it would wait for half a minute for what it believes to hold
            await task
    assert not [record for record in caplog.records if record.levelname == "ERROR" and record.name.startswith("streamflow")]


async def test_a_job_of_a_newer_release_stops_no_feeder(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("tail"),)), {}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("a"))
        for key in (f"job.{job.id}", f"{jobs.ACTIVE}.{job.id}"):
            await bucket.put(flow.bus, flow_name, key, asdict(job) | {"colour": "red"})
        flow.start_worker("tail", Tail)
        assert (await finished(flow.bus, job)).done == 1


async def test_a_mark_that_cannot_be_read_stops_no_feeder_for_good(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder, "IDLE_S", 0.1)
    async with running(settings, Graph(flow_name, (Node("tail"),)), {"tail": Tail}) as flow:
        mark = f"{jobs.ACTIVE}.broken"
        await bucket.put(flow.bus, flow_name, mark, ["no job"])
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("a"))
        await asyncio.sleep(0.3)
        await bucket.delete(flow.bus, flow_name, mark)
        assert (await finished(flow.bus, job)).done == 1


@pytest.mark.parametrize("left_bytes", [600, 60, 5])
async def test_parameters_that_leave_no_room_for_more_still_have_an_outcome(
    settings: BrokerSettings, flow_name: str, left_bytes: int
) -> None:
    """What is stored for an input just fits into a header; on its way it gets longer."""
    async with running(settings, Graph(flow_name, (Node("tail"),)), {"tail": Tail}) as flow:
        stored = Envelope("0123456789abcdef-0", flow_name, endpoint="/x", content_type=JSON, lane="bulk", record="0123456789abcdef.0")
        room = MAX_HEADER_BYTES - len(encode(stored._replace(parameters={"text": "x" * 100_000}))) + 100_004 - left_bytes
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x", {"text": "x" * room}), inputs("a"))
        assert (await finished(flow.bus, job)).done == 1


async def test_one_job_more_than_the_broker_has_room_for_is_told_to_come_again(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    """A stream has 1,000 consumers at most, and each unfinished job one of them. Nobody feeds these."""
    await provision(bus, Graph(flow_name, (Node("upper"),)), settings)
    order = jobs.Order(flow_name, "/x")
    for _ in range(10):
        await asyncio.gather(*(jobs.submit(bus, order, inputs("a")) for _ in range(100)))
    with pytest.raises(Overloaded, match="as many unfinished jobs as the broker allows"):
        await jobs.submit(bus, order, inputs("a"))
    first = (await jobs.ids(bus, flow_name))[0]
    await jobs.cancel(bus, await jobs.get(bus, flow_name, first))
    assert (await jobs.submit(bus, order, inputs("a"))).total == 1
    await bus.api(f"STREAM.DELETE.{subjects.jobs_stream(flow_name)}")  # with so many consumers the broker takes long to end


async def test_a_rate_is_kept(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name), {"upper": Upper, "tail": Tail}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x", rate=100.0), inputs(*(f"t{n}" for n in range(150))))
        await finished(flow.bus, job)
        stored = [
            m.time async for m in reader.read(flow.bus, subjects.results_stream(flow_name), subjects.result(flow_name, f"{job.id}.*"))
        ]
        assert 1.2 < stored[-1] - stored[0] < 5


async def test_large_inputs_and_results_are_kept(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name), {"upper": Upper, "tail": Tail}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("a" * 1_500_000))
        await finished(flow.bus, job)
        (found,) = (await outcomes(flow.bus, job)).values()
        assert found.claim is not None


async def test_what_cannot_be_a_job(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name), {}) as flow:
        with pytest.raises(InvalidInput, match="at least one input"):
            await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs())
        with pytest.raises(NotFound, match="no job 'nothing'"):
            await jobs.get(flow.bus, flow_name, "nothing")
        flow.start_worker("upper", Upper)
        flow.start_worker("tail", Tail)
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x", target_executor="["), inputs("a"))
        progress = await finished(flow.bus, job)
        assert progress.failed == 1


async def test_replay_of_a_job_of_its_failures_and_into_another_flow(settings: BrokerSettings, flow_name: str) -> None:
    other = f"{flow_name}b"
    async with (
        running(settings, chain(flow_name), {"upper": Upper, "tail": Tail}) as flow,
        running(settings, Graph(other, (Node("tail"),)), {"tail": Tail}),
    ):
        texts = [f"t{n}" for n in range(40)] + ["bad 1", "bad 2"]
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs(*texts))
        assert (await finished(flow.bus, job)).failed == 2
        before = {n: bytes(answer.body) for n, answer in (await outcomes(flow.bus, job)).items()}

        Upper.repaired = True
        failed = (await replay(flow.bus, flow_name, job_id=job.id, failed_only=True)).job
        assert failed.total == 2 and (await finished(flow.bus, failed)).failed == 0
        assert {n: text_of(a) for n, a in (await outcomes(flow.bus, failed)).items()} == {40: "BAD 1!", 41: "BAD 2!"}

        whole = (await replay(flow.bus, flow_name, job_id=job.id, key="again")).job
        assert (await replay(flow.bus, flow_name, job_id=job.id, key="again")).job == whole
        assert (await finished(flow.bus, whole)).done == 42
        part = (await replay(flow.bus, flow_name, job_id=whole.id, within=Range(from_seq=11, to_seq=20))).job
        assert (await finished(flow.bus, part)).done == part.total == 10
        assert sorted(await outcomes(flow.bus, part)) == list(range(10, 20))
        elsewhere = (await replay(flow.bus, flow_name, job_id=job.id, to_flow=other)).job
        await finished(flow.bus, elsewhere)
        assert text_of((await outcomes(flow.bus, elsewhere))[0]) == "t0!"

        assert {n: bytes(answer.body) for n, answer in (await outcomes(flow.bus, job)).items()} == before
        with pytest.raises(NotFound, match="no failures"):
            await replay(flow.bus, flow_name, job_id=whole.id, failed_only=True)
        with pytest.raises(NotFound, match="nothing in that range"):
            await replay(flow.bus, flow_name, job_id=job.id, within=Range(since=time.time() + 60))
        with pytest.raises(NotFound, match="keeps no journal"):
            await replay(flow.bus, flow_name)


async def test_a_replay_says_what_is_gone(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name), {"upper": Upper, "tail": Tail}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("a", "bad", "c"))
        await finished(flow.bus, job)
        await flow.bus.api(f"STREAM.PURGE.{subjects.jobs_stream(flow_name)}", {"filter": subjects.job(flow_name, job.id, f"{job.id}-1")})
        again = await replay(flow.bus, flow_name, job_id=job.id)
        assert (again.job.total, again.gone) == (2, 1)
        assert sorted(await outcomes(flow.bus, (await finished(flow.bus, again.job)).job)) == [0, 2]
        failed = (await replay(flow.bus, flow_name, job_id=job.id, failed_only=True)).job
        assert (await finished(flow.bus, failed)).failed == 1
        assert "is gone" in (await outcomes(flow.bus, failed))[1].status.description
        await flow.bus.api(f"STREAM.PURGE.{subjects.jobs_stream(flow_name)}")
        with pytest.raises(NotFound, match="all of its inputs are gone"):
            await replay(flow.bus, flow_name, job_id=job.id)
