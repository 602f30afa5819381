"""Nothing of an accepted request expires before it is done; what a request leaves behind when it ends early is cleared."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow.broker import blobs, dead_letters, jobs, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.dead_letters import Retried
from streamflow.broker.envelope import JSON, Envelope, decode
from streamflow.broker.errors import Code, Overloaded
from streamflow.broker.flow import Graph, Node, Polling
from streamflow.broker.job_results import results
from streamflow.broker.pull import Delivery, Pull
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.gateway.dispatch import Call, Dispatcher
from streamflow.workers.executor import Executor, requests
from tests.running import Running, running
from tests.waiting import eventually

SHORT_S = 1.0
BRANCHES = (Node("fast"), Node("slow"), Node("end", needs=("fast", "slow")))


class Adds(Executor):
    """Appends a document with its own name, and is as large as the first one."""

    @requests
    def add(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        docs.append(TextDoc(text=self.runtime_args.name + (docs[0].text or "")[1:]))


@pytest.fixture
def settings(settings: BrokerSettings) -> BrokerSettings:
    return settings.model_copy(update={"blob_ttl_s": SHORT_S, "inline_bytes": 1000})


def body(text: str) -> bytes:
    return json.dumps({"data": [{"text": text}]}).encode()


async def inputs(*texts: str) -> AsyncIterator[jobs.Input]:
    for text in texts:
        yield jobs.Input(JSON, body(text))


async def stored(flow: Running, stream: str) -> dict[str, Any]:
    state: dict[str, Any] = (await flow.bus.api(f"STREAM.INFO.{stream}", {"subjects_filter": ">"}))["state"]
    return state


async def parts_at(flow: Running, place: str) -> list[str]:
    return sorted((await stored(flow, subjects.part_stream(flow.graph.flow, place))).get("subjects") or {})


async def bodies(flow: Running) -> list[str]:
    return sorted((await stored(flow, subjects.blob_stream(flow.graph.flow))).get("subjects") or {})


async def outcomes(flow: Running, job: jobs.Job) -> list[Envelope]:
    async with asyncio.timeout(15):
        return [result.envelope async for result in results(flow.bus, job)]


async def is_empty(flow: Running, *places: str) -> None:
    async def nothing_left() -> bool:
        return not await bodies(flow) and not any([await parts_at(flow, place) for place in places])

    await eventually(nothing_left, what="nothing is left of the request")


async def test_a_branch_with_a_backlog_finds_the_parts_and_bodies_of_the_others(settings: BrokerSettings, flow_name: str) -> None:
    texts = ("s", "l" * 5000)
    async with running(settings, Graph(flow_name, BRANCHES), {}) as flow:
        for name in ("fast", "end"):
            flow.start_worker(name, Adds)
        await flow.ready_with({"fast": 1, "end": 1})
        asked = [flow.dispatcher.send(Call("/x", body(text), JSON, deadline=time.time() + 60)) for text in texts]
        asked += [flow.dispatcher.send(Call("/x", body(text), JSON)) for text in texts]
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs(*texts))

        async def has_run() -> bool:
            return len(await parts_at(flow, "end")) == 6

        await eventually(has_run, what="the fast branch is done")
        await asyncio.sleep(SHORT_S + 1.5)  # what would expire does
        flow.start_worker("slow", Adds)
        for answer in await asyncio.wait_for(asyncio.gather(*asked), 15):
            assert answer.status.code is Code.OK, answer.status
            assert {doc["text"].rstrip("l") for doc in json.loads(bytes(answer.body))} >= {"fast", "slow", "end"}
        assert [outcome.status.code for outcome in await outcomes(flow, job)] == [Code.OK, Code.OK]
        await is_empty(flow, "end")


class Turns(Executor):
    """Waits for `gate`."""

    gate = asyncio.Event()
    ran: list[str] = []

    @requests
    async def turn(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        Turns.ran.append(self.runtime_args.name)
        await Turns.gate.wait()


@pytest.fixture(autouse=True)
def closed_gate() -> None:
    Turns.gate = asyncio.Event()
    Turns.ran = []


class Refuses(Executor):
    @requests
    def refuse(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        raise ValueError("not this one")


@pytest.mark.parametrize("failing", ["fast", "slow"])
async def test_what_a_failing_branch_leaves_alone_is_cleared(settings: BrokerSettings, flow_name: str, failing: str) -> None:
    """Whichever comes first; small and large; of requests and of jobs."""
    texts = ("s", "l" * 5000)
    async with running(settings, Graph(flow_name, BRANCHES), {}) as flow:
        flow.start_worker("fast", Refuses if failing == "fast" else Adds)
        flow.start_worker("end", Adds)
        await flow.ready_with({"fast": 1, "end": 1})
        asked = [flow.dispatcher.send(Call("/x", body(text), JSON)) for text in texts]
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs(*texts))

        async def has_run() -> bool:
            return len(await parts_at(flow, "end")) == 4

        await eventually(has_run, what="the fast branch is done")
        flow.start_worker("slow", Refuses if failing == "slow" else Adds)
        for answer in await asyncio.wait_for(asyncio.gather(*asked), 15):
            assert answer.status.exception == "ValueError", answer.status
        assert [outcome.status.exception for outcome in await outcomes(flow, job)] == ["ValueError"] * 2
        await is_empty(flow, "end")


async def test_a_failure_is_told_at_every_place_where_parts_meet(settings: BrokerSettings, flow_name: str) -> None:
    """a and b meet at one; one and c at two; two and d make the answer."""
    nodes = (
        Node("a"), Node("b"), Node("c"), Node("d"), Node("one", needs=("a", "b")), Node("two", needs=("one", "c")),
    )  # fmt: skip
    async with running(
        settings, Graph(flow_name, nodes), {"a": Refuses, "b": Adds, "c": Adds, "d": Adds, "one": Adds, "two": Adds}
    ) as flow:
        answers = await asyncio.wait_for(asyncio.gather(*(flow.dispatcher.send(Call("/x", body("s"), JSON)) for _ in range(5))), 15)
        assert {answer.status.exception for answer in answers} == {"ValueError"}
        await is_empty(flow, "one", "two", "gateway")


async def test_a_shard_that_fails_leaves_nothing_of_the_others(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("s", shards=2, polling={"*": Polling.ALL}),))
    async with running(settings, graph, {}) as flow:
        flow.start_worker("s", Adds, shard=0)
        flow.start_worker("s", Refuses, shard=1)
        await flow.ready()
        answer = await asyncio.wait_for(flow.dispatcher.send(Call("/x", body("s"), JSON)), 15)
        assert answer.status.exception == "ValueError"

        async def both_came() -> bool:
            return int((await stored(flow, subjects.part_stream(flow_name, "s")))["last_seq"]) == 2

        await eventually(both_came, what="the other shard's part, and the blank")
        await is_empty(flow, "s")


async def test_what_fails_before_branches_part_stores_nothing(settings: BrokerSettings, flow_name: str) -> None:
    nodes = (Node("first"), Node("a", needs=("first",)), Node("b", needs=("first",)), Node("end", needs=("a", "b")))
    async with running(settings, Graph(flow_name, nodes), {"first": Refuses, "a": Adds, "b": Adds, "end": Adds}) as flow:
        answer = await asyncio.wait_for(flow.dispatcher.send(Call("/x", body("s"), JSON)), 15)
        assert answer.status.exception == "ValueError"
        assert not (await stored(flow, subjects.part_stream(flow_name, "end")))["last_seq"]


async def test_a_cancelled_job_and_a_client_that_left_leave_no_parts(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, BRANCHES), {"fast": Adds, "slow": Turns, "end": Adds}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs(*("s" for _ in range(5))))
        asked = flow.dispatcher.send(Call("/x", body("l" * 5000), JSON))

        async def has_run() -> bool:
            return len(await parts_at(flow, "end")) == 6

        await eventually(has_run, what="the fast branch is done")
        await eventually(lambda: len(Turns.ran) == 6, what="the slow branch runs")
        await jobs.cancel(flow.bus, job)
        asked.cancel()
        await is_empty(flow, "end")


async def test_parts_are_kept_until_the_deadline_and_a_while_or_as_long_as_inputs(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, BRANCHES), {}) as flow:
        flow.start_worker("fast", Adds)
        await flow.ready_with({"fast": 1})
        online = flow.dispatcher.send(Call("/x", body("l" * 5000), JSON, deadline=time.time() + 100))
        await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("s"))

        async def has_run() -> bool:
            return len(await parts_at(flow, "end")) == 2

        await eventually(has_run, what="the fast branch is done")
        kept = {each: await seconds_of(flow, subjects.part_stream(flow_name, "end"), each) for each in await parts_at(flow, "end")}
        assert sorted(kept.values()) == [pytest.approx(101, abs=2), settings.keep_s]
        marks_and_bodies = {await seconds_of(flow, subjects.blob_stream(flow_name), each) for each in await bodies(flow)}
        assert max(marks_and_bodies) == pytest.approx(101, abs=2)
        online.cancel()


async def seconds_of(flow: Running, stream: str, subject: str) -> float:
    """What the message on `subject` says of its own life."""
    found = (await flow.bus.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}))["message"]
    header = re.search(rb"Nats-TTL: (\d+)s", base64.b64decode(found["hdrs"]))
    assert header is not None
    return float(header[1])


@pytest.mark.slow
async def test_a_large_input_that_is_old_when_it_is_fed_gets_a_body_that_lasts(settings: BrokerSettings, flow_name: str) -> None:
    settings = settings.model_copy(update={"keep_s": 6.0})
    async with running(settings, Graph(flow_name, (Node("held"),)), {}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("l" * 5000))
        await asyncio.sleep(settings.keep_s / 2 + 0.1)
        flow.start_worker("held", Turns)
        await eventually(lambda: Turns.ran, what="it runs")
        name = f"{job.id}-0"
        given = await flow.bus.direct_get(subjects.jobs_stream(flow_name), subjects.job(flow_name, job.id, name))
        fed = await flow.bus.direct_get(subjects.work_stream(flow_name, "held"), subjects.work(flow_name, "held", "bulk", name))
        assert given is not None and fed is not None
        claims = [decode(message).claim for message in (given, fed)]
        assert claims[0] and claims[1] and claims[0].key != claims[1].key and claims[0].sha256 == claims[1].sha256
        Turns.gate.set()
        assert [outcome.status.code for outcome in await outcomes(flow, job)] == [Code.OK]


async def test_parts_wait_for_a_quarantined_request_and_its_letter_is_put_back(settings: BrokerSettings, flow_name: str) -> None:
    nodes = (Node("fast"), Node("slow", ack_wait_s=0.2, max_deliver=1), Node("end", needs=("fast", "slow")))
    async with running(settings, Graph(flow_name, nodes), {}) as flow:
        flow.start_worker("fast", Adds)
        flow.start_worker("end", Adds)
        await flow.ready_with({"fast": 1, "end": 1})
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("l" * 5000))
        got: list[Delivery] = []
        pull = Pull(flow.bus, subjects.work_stream(flow_name, "slow"), "bulk", got.append)
        await pull.start()
        await eventually(lambda: got, what="it is delivered to one that dies")
        await pull.stop()
        flow.start_worker("slow", Adds)
        (outcome,) = await outcomes(flow, job)
        assert outcome.status.code is Code.QUARANTINED
        assert await parts_at(flow, "end") == [subjects.part(flow_name, "end", f"{job.id}-0", "join", "fast")]
        (letter,) = [each async for each in dead_letters.letters(flow.bus, flow_name)]
        assert await dead_letters.retry(flow.bus, letter) is Retried.QUEUED
        (outcome,) = await outcomes(flow, job)
        assert outcome.status.code is Code.OK
        await is_empty(flow, "end")


@pytest.mark.parametrize("text", ["s", "l" * 5000], ids=["small", "large"])
async def test_a_request_that_one_of_two_first_executors_has_no_room_for_leaves_no_part(
    settings: BrokerSettings, flow_name: str, text: str
) -> None:
    settings = settings.model_copy(update={"max_queue_messages": 2})
    async with running(settings, Graph(flow_name, BRANCHES), {}) as flow:
        for name in ("fast", "end"):
            flow.start_worker(name, Adds)
        await flow.ready_with({"fast": 1, "end": 1})

        async def wait_for_parts(count: int) -> None:
            async def have_come() -> bool:
                state = await stored(flow, subjects.part_stream(flow_name, "end"))
                return bool(state["last_seq"] >= count)

            await eventually(have_come, what=f"{count} parts came")

        accepted = []
        for number in (1, 2):
            accepted.append(flow.dispatcher.send(Call("/x", body(text), JSON)))
            await wait_for_parts(number)
        for number in (4, 6):  # a part and a blank of each
            answer = await asyncio.wait_for(flow.dispatcher.send(Call("/x", body(text), JSON)), 5)
            assert answer.status.code is Code.RESOURCE_EXHAUSTED
            await wait_for_parts(number)

        async def two_are_left() -> bool:
            return len(await parts_at(flow, "end")) == 2

        await eventually(two_are_left, what="only the parts of the accepted requests are left")
        flow.start_worker("slow", Adds)
        assert [(await asyncio.wait_for(each, 10)).status.code for each in accepted] == [Code.OK, Code.OK]
        await is_empty(flow, "end")


async def test_an_id_whose_request_had_no_room_can_be_used_again(settings: BrokerSettings, flow_name: str) -> None:
    """With `keep`: half accepted, then sent again under the same id when there is room."""
    settings = settings.model_copy(update={"max_queue_messages": 1})
    async with running(settings, Graph(flow_name, BRANCHES), {}) as flow:
        for name in ("fast", "end"):
            flow.start_worker(name, Adds)
        await flow.ready_with({"fast": 1, "end": 1})
        first = asyncio.ensure_future(flow.dispatcher.send(Call("/x", body("s"), JSON)))

        async def has_run() -> bool:
            return len(await parts_at(flow, "end")) == 1

        await eventually(has_run, what="the fast branch is done")
        kept = Call("/x", body("s"), JSON, client_id="mine", keep_s=60.0)
        refused = await asyncio.wait_for(flow.dispatcher.send(kept), 5)
        assert refused.status.code is Code.RESOURCE_EXHAUSTED
        await eventually(has_run, what="its part of the fast branch is removed")
        flow.start_worker("slow", Adds)
        assert (await asyncio.wait_for(first, 10)).status.code is Code.OK

        async def is_answered() -> bool:
            return (await flow.dispatcher.send(kept)).status.code is Code.OK  # UNAVAILABLE for a second: the id is being freed

        await eventually(is_answered, what="it is answered under the same id")
        await is_empty(flow, "end")


async def test_a_body_that_finds_no_room_gives_back_what_it_took(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    settings = settings.model_copy(update={"max_queue_bytes": 1 << 20})
    graph = Graph(flow_name, (Node("one"),))
    await provision(bus, graph, settings)
    flow = Running(bus, graph, Dispatcher(bus, graph), settings)
    with pytest.raises(Overloaded):
        await blobs.check_in(bus, Envelope("r", flow_name, body=b"x" * (3 << 20)))
    await is_empty(flow)
    kept = await blobs.check_in(bus, Envelope("r", flow_name, body=b"x" * (3 << 19)))
    assert kept.claim is not None
    await blobs.discard(bus, flow_name, kept.claim)
    await is_empty(flow)
