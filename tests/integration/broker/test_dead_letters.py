"""What executors gave up on: kept whole, put back once, removed."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc

from streamflow.broker import codec, dead_letters, jobs, reader, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.dead_letters import DeadLetter, Retried
from streamflow.broker.envelope import JSON, Envelope, decode, encode
from streamflow.broker.errors import Code, InvalidInput, NotFound, Status
from streamflow.broker.flow import Graph, Node
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call
from streamflow.workers.executor import Executor, requests
from tests.running import Running, running
from tests.waiting import eventually


class Picky(Executor):
    """Refuses texts that begin with "bad" until it is repaired."""

    runs: Counter[str] = Counter()
    repaired = False

    @requests
    def pick(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        for doc in docs:
            text = doc.text or ""
            Picky.runs[text[:10]] += 1
            if text.startswith("bad") and not Picky.repaired:
                raise ValueError("not to my taste")
            doc.text = text + "!"


@pytest.fixture(autouse=True)
def fresh() -> None:
    Picky.runs = Counter()
    Picky.repaired = False


async def inputs(*texts: str) -> AsyncIterator[jobs.Input]:
    for text in texts:
        yield jobs.Input(JSON, json.dumps({"data": [{"text": text}]}).encode())


async def letters(flow: Running, **chosen: str) -> list[DeadLetter]:
    return [letter async for letter in dead_letters.letters(flow.bus, flow.graph.flow, **chosen)]


async def done(bus: Bus, job: jobs.Job) -> jobs.Progress:
    async def is_done() -> bool:
        return (await jobs.progress(bus, job)).state is jobs.State.DONE

    await eventually(is_done, what="the job is done")
    return await jobs.progress(bus, job)


async def outcomes(flow: Running, job: jobs.Job) -> dict[int, Envelope]:
    found = reader.read(flow.bus, subjects.results_stream(job.flow), subjects.result(job.flow, f"{job.id}.*"))
    return {int(message.subject.rpartition(".")[2]): decode(message.payload) async for message in found}


def chain(name: str) -> Graph:
    return Graph(name, (Node("picky"), Node("tail", needs=("picky",))))


async def test_a_failure_in_a_job_is_kept_and_its_result_is_the_one_after_the_repair(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name), {"picky": Picky, "tail": Picky}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("a", "bad 1", "b", "bad 2"))
        assert (await done(flow.bus, job)).failed == 2
        found = await letters(flow)
        assert [letter.job for letter in found] == [job.id] * 2
        letter = next(each for each in found if each.request_id.endswith("-1"))
        assert (letter.executor, letter.attempts, letter.status.exception) == ("picky", 1, "ValueError")
        assert "not to my taste" in "".join(letter.status.stacks) and letter.worker.startswith("picky/rep-0 ")
        assert dead_letters.documents(await dead_letters.whole(flow.bus, letter)) == {"data": [{"text": "bad 1"}]}
        assert json.loads(json.dumps(letter.to_dict()))["error"] == "ValueError('not to my taste')"

        Picky.repaired = True
        several = await asyncio.gather(*(dead_letters.retry(flow.bus, letter) for _ in range(5)))
        assert several.count(Retried.QUEUED) == 1 and set(several) <= {Retried.QUEUED, Retried.TAKEN, Retried.GONE}
        assert (await done(flow.bus, job)).failed == 1
        codes = {number: answer.status.code for number, answer in (await outcomes(flow, job)).items()}
        assert codes == {0: Code.OK, 1: Code.OK, 2: Code.OK, 3: Code.EXECUTOR_ERROR}
        assert Picky.runs["bad 1"] == 2 and await dead_letters.retry(flow.bus, letter) is Retried.GONE
        assert [each.request_id for each in await letters(flow, job=job.id)] == [f"{job.id}-3"]


async def test_one_that_fails_again_is_a_letter_again(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name), {"picky": Picky, "tail": Picky}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("bad"))
        await done(flow.bus, job)
        (first,) = await letters(flow)
        assert await dead_letters.retry(flow.bus, first) is Retried.QUEUED
        await eventually(lambda: Picky.runs["bad"] == 2, what="it runs again")
        assert (await done(flow.bus, job)).failed == 1

        async def is_back() -> bool:
            return [letter.id for letter in await letters(flow)] == [first.id + 1]

        await eventually(is_back, what="it is a letter again")


async def test_another_attempt_that_succeeded_is_left_alone(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name), {"picky": Picky, "tail": Picky}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("bad"))
        await done(flow.bus, job)
        (letter,) = await letters(flow)
        await flow.bus.api(f"STREAM.PURGE.{subjects.results_stream(flow_name)}")
        good = letter.envelope._replace(status=Envelope("x").status, extra={})
        await flow.bus.store_first_wait(subjects.result(flow_name, letter.envelope.record), encode(good))
        assert await dead_letters.retry(flow.bus, letter) is Retried.SUCCEEDED
        assert not await letters(flow) and Picky.runs["bad"] == 1


async def test_a_large_request_is_kept_whole(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name), {"picky": Picky, "tail": Picky}) as flow:
        text = "bad" + "x" * 1_500_000
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs(text))
        assert (await done(flow.bus, job)).failed == 1
        (letter,) = await letters(flow)
        assert letter.to_dict()["bytes"] > len(text)
        assert dead_letters.documents(await dead_letters.whole(flow.bus, letter))["data"][0]["text"] == text
        Picky.repaired = True
        assert await dead_letters.retry(flow.bus, letter) is Retried.QUEUED
        assert (await done(flow.bus, job)).failed == 0
        answer = (await outcomes(flow, job))[0]
        assert answer.claim is not None and answer.status.code is Code.OK


async def test_what_a_client_was_told_is_no_letter(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name), {"picky": Picky, "tail": Picky}) as flow:
        answer = await flow.dispatcher.send(Call("/x", b'{"data":[{"text":"bad"}]}', JSON))
        assert answer.status.code is Code.EXECUTOR_ERROR
        assert not await letters(flow)


async def test_what_its_client_did_not_wait_for_runs_when_it_is_put_back(settings: BrokerSettings, flow_name: str) -> None:
    """Whoever waited until workers had died of it has left meanwhile, and workers that were there have been told."""
    async with running(settings, chain(flow_name), {"picky": Picky, "tail": Picky}) as flow:
        flow.bus.publish(subjects.control(flow_name, "cancel"), b"left")
        given_up = Envelope(
            "left", flow_name, flow.graph.version, "/x", hop="picky", content_type=JSON, accept=JSON, reply="sf.reply.x.y.left",
            status=Status(Code.QUARANTINED, "5 workers died"), body=b'{"data":[{"text":"a"}]}',
        )  # fmt: skip
        await flow.bus.store_wait(subjects.dead(flow_name, "picky", "left"), encode(given_up), "letter")
        (letter,) = await letters(flow)
        assert await dead_letters.retry(flow.bus, letter) is Retried.QUEUED
        stream, subject = subjects.results_stream(flow_name), subjects.result(flow_name, f"{dead_letters.AGAIN}.{letter.id}")

        async def is_recorded() -> bool:
            return await flow.bus.direct_get(stream, subject) is not None

        await eventually(is_recorded, 5.0, "it has an outcome")
        assert Picky.runs == {"a": 1, "a!": 1}


async def test_bytes_that_are_no_request_can_only_be_removed(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, chain(flow_name), {"picky": Picky, "tail": Picky}) as flow:
        await flow.bus.store_wait(subjects.work(flow_name, "picky", "now", "junk"), b"junk", "junk")

        async def is_there() -> bool:
            return bool(await letters(flow, executor="picky"))

        await eventually(is_there, what="the letter is there")
        (letter,) = await letters(flow)
        assert bytes(letter.envelope.body) == b"junk" and not await letters(flow, executor="tail")
        with pytest.raises(InvalidInput, match="can only be removed"):
            await dead_letters.retry(flow.bus, letter)
        assert await dead_letters.remove(flow.bus, letter) and not await dead_letters.remove(flow.bus, letter)
        with pytest.raises(NotFound, match=f"no dead letter {letter.id}"):
            await dead_letters.find(flow.bus, flow_name, letter.id)


async def test_columns_are_shown_as_values() -> None:
    body = codec.encode(DocList[TextDoc]([TextDoc(id="1", text="a")]), "application/vnd.streamflow.columns")
    shown = dead_letters.documents(Envelope("r", content_type="application/vnd.streamflow.columns", body=body))
    assert shown[0]["text"] == "a" and dead_letters.documents(Envelope("r")) is None


def branches(name: str) -> Graph:
    return Graph(name, (Node("picky"), Node("other"), Node("tail", needs=("picky", "other"))))


class Same(Executor):
    pass


async def test_a_branch_is_put_back_only_while_the_others_wait_for_it(settings: BrokerSettings, flow_name: str) -> None:
    """An exception in a job removes what waits for it: put back, the request would never come to an end, and its outcome be gone."""
    async with running(settings, branches(flow_name), {"picky": Picky, "other": Same, "tail": Same}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs("bad"))
        await done(flow.bus, job)
        (letter,) = await letters(flow)
        stream = subjects.part_stream(flow_name, "tail")

        async def is_removed() -> bool:
            state = (await flow.bus.api(f"STREAM.INFO.{stream}"))["state"]
            return bool(state["last_seq"] == 2 and not state["messages"])

        await eventually(is_removed, what="the other branch's part is removed")
        with pytest.raises(
            InvalidInput, match=f"part 'other', which it would meet at 'tail', is gone; replay the failures of job {job.id}"
        ):
            await dead_letters.retry(flow.bus, letter)
        assert [each.id for each in await letters(flow)] == [letter.id] and (await done(flow.bus, job)).failed == 1

        Picky.repaired = True
        waiting = letter.envelope._replace(hop="tail", part="other", expected=("picky", "other"), status=Envelope("x").status, extra={})
        await flow.bus.store_wait(subjects.part(flow_name, "tail", letter.request_id, "join", "other"), encode(waiting), "kept for it")
        assert await dead_letters.retry(flow.bus, letter) is Retried.QUEUED
        assert (await done(flow.bus, job)).failed == 0


async def test_letters_that_had_to_give_way_are_told_of(settings: BrokerSettings, flow_name: str) -> None:
    small = settings.model_copy(update={"max_queue_bytes": 400_000})
    async with running(small, Graph(flow_name, (Node("picky"),)), {"picky": Picky}) as flow:
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs(*("bad" + "x" * 15_000 for _ in range(5))))
        await done(flow.bus, job)
        first = await letters(flow)
        assert len(first) == 5
        await dead_letters.remove(flow.bus, first[0])
        assert await dead_letters.dropped(flow.bus, flow_name) == "", "one that was removed is not missed"
        job = await jobs.submit(flow.bus, jobs.Order(flow_name, "/x"), inputs(*("bad" + "x" * 15_000 for _ in range(15))))
        await done(flow.bus, job)
        found = await letters(flow)
        assert len(found) < 15 and found[0].id > 5
        told = await dead_letters.dropped(flow.bus, flow_name)
        assert told.startswith("the store of dead letters is full (0.2 of 0.2 MiB) and drops the oldest:")
        assert f"those before {found[0].id} are gone" in told
