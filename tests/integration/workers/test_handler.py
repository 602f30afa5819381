"""A delivery's whole path: dispatcher, broker, workers and back, with every way it can end."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from typing import Any

import pytest
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc

from streamflow.broker import codec, reader, subjects
from streamflow.broker.envelope import COLUMNS, JSON, MAX_HEADER_BYTES, Envelope, decode, encode
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node
from streamflow.broker.pull import Delivery, Pull
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call
from streamflow.workers.executor import Executor, requests
from streamflow.workers.process import Processor
from tests.running import Running, running
from tests.waiting import eventually


class Upper(Executor):
    @requests(on="/up")
    def up(self, docs: DocList[TextDoc], parameters: dict[str, Any], **kwargs: Any) -> None:
        for doc in docs:
            doc.text = doc.text.upper() + parameters.get("suffix", "")


class Twice(Executor):
    @requests
    async def twice(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        return DocList[TextDoc](TextDoc(text=doc.text * 2) for doc in docs)


class Raises(Executor):
    @requests
    def fail(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        raise NotImplementedError("no time for it")


class Counts(Executor):
    @requests
    def count(self, docs: DocList[TextDoc], **kwargs: Any) -> dict[str, int]:
        return {"count": len(docs)}


class Grows(Executor):
    @requests
    def grow(self, docs: DocList[TextDoc], **kwargs: Any) -> dict[str, str]:
        docs[0].text = "x" * 2_000_000
        return {"x": "x" * MAX_HEADER_BYTES}


class Slow(Executor):
    started = threading.Event()
    release = threading.Event()
    runs: list[str] = []

    @requests
    def wait(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        Slow.runs.extend(doc.text for doc in docs)
        Slow.started.set()
        assert Slow.release.wait(30)


class Price(BaseDoc):
    price: float


class Needs(Executor):
    @requests
    def price(self, docs: DocList[Price], **kwargs: Any) -> DocList[Price]:
        return docs


def texts(body: Any) -> list[str]:
    return [doc["text"] for doc in json.loads(bytes(body))]


def call(endpoint: str, *values: str, **options: Any) -> Call:
    return Call(endpoint, json.dumps({"data": [{"text": value} for value in values]}).encode(), JSON, **options)


async def ask(flow: Running, request: Call) -> Envelope:
    return await asyncio.wait_for(flow.dispatcher.send(request), 20)


@pytest.mark.feature("FL-04", "DC-06")
async def test_a_chain_hands_on_and_answers_in_the_clients_form(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("upper"), Node("twice", needs=("upper",))))
    async with running(settings, graph, {"upper": Upper, "twice": Twice}) as flow:
        answer = await ask(flow, call("/up", "a", "b", parameters={"suffix": "!"}))
        assert texts(answer.body) == ["A!A!", "B!B!"]
        assert [(hop.executor, hop.replica) for hop in answer.trail] == [("upper", "upper/rep-0"), ("twice", "twice/rep-0")]
        assert all(0 < hop.enqueued <= hop.ended and hop.started <= hop.ended for hop in answer.trail)

        skipped = await ask(flow, call("/other", "a"))
        assert texts(skipped.body) == ["aa"]


async def test_parameters_in_the_body_reach_every_executor(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("pass"), Node("upper", needs=("pass",))))
    async with running(settings, graph, {"pass": Upper, "upper": Upper}) as flow:
        body = json.dumps({"data": [{"text": "x"}], "parameters": {"suffix": "?", "upper__suffix": "#"}}).encode()
        answer = await ask(flow, Call("/up", body, JSON))
        assert texts(answer.body) == ["X?#"]
        assert answer.parameters == {"suffix": "?", "upper__suffix": "#"}


@pytest.mark.feature("EX-15", "QU-02")
async def test_a_user_exception_is_an_answer_and_the_queue_is_empty_after(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("raises"), Node("twice", needs=("raises",))))
    async with running(settings, graph, {"raises": Raises, "twice": Twice}) as flow:
        answer = await ask(flow, call("/any", "a"))
        assert (answer.status.code, answer.status.description) == (Code.EXECUTOR_ERROR, "NotImplementedError('no time for it')")
        assert answer.status.executor == "Raises" and "no time for it" in answer.status.stacks[-1]
        await nothing_left(flow)


async def nothing_left(flow: Running) -> None:
    async def left() -> int:
        infos = [await flow.bus.api(f"STREAM.INFO.{subjects.work_stream(flow.graph.flow, name)}") for name in flow.graph.names]
        return sum(info["state"]["messages"] for info in infos)

    limit = time.monotonic() + 5
    while await left():
        assert time.monotonic() < limit, "messages are left in a work queue"


async def dead_letters(flow: Running) -> list[bytes]:
    name = flow.graph.flow
    return [letter.payload async for letter in reader.read(flow.bus, subjects.dead_stream(name), subjects.dead(name, "*", "*"))]


@pytest.mark.feature("EX-12")
async def test_a_dict_is_a_result_beside_the_documents(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("counts"),)), {"counts": Counts}) as flow:
        answer = await ask(flow, call("/n", "a", "b", "c"))
        assert answer.results == {"counts/rep-0": {"count": 3}}
        assert texts(answer.body) == ["a", "b", "c"]


@pytest.mark.feature("DC-01")
@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "JSON"),
        (b'{"data": [{"price": 1}, {"price": "much"}]}', r"data\[1\].price"),
        (b'{"data": [{}]}', r"data\[0\].price"),
        (b'{"data": 5}', "data"),
        (b"\xff\xfe", "JSON"),
        (b'{"data": [], "parameters": 5}', "parameters"),
    ],
)
async def test_a_bad_body_is_an_invalid_argument_naming_the_field(settings: BrokerSettings, flow_name: str, body: bytes, text: str) -> None:
    async with running(settings, Graph(flow_name, (Node("needs"),)), {"needs": Needs}) as flow:
        answer = await ask(flow, Call("/x", body, JSON))
        assert answer.status.code is Code.INVALID_ARGUMENT
        with pytest.raises(Exception, match=text):
            answer.status.raise_for()
        await nothing_left(flow)


@pytest.mark.feature("QU-02")
async def test_bytes_that_are_no_envelope_become_a_dead_letter(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("twice"),)), {"twice": Twice}) as flow:
        await flow.bus.store_wait(subjects.work(flow_name, "twice", "now", "r1"), b"not an envelope", "id")
        await nothing_left(flow)
        (dead,) = await dead_letters(flow)
        assert bytes(decode(dead).body) == b"not an envelope" and decode(dead).extra["dead"]["attempts"] == 1
        assert texts((await ask(flow, call("/x", "a"))).body) == ["aa"]


@pytest.mark.parametrize("size", [0, 1024, (1 << 20) - 64, (1 << 20) - 1, 1 << 20, (1 << 20) + 64, 16 << 20])
async def test_every_size_is_answered_and_the_connection_stays(settings: BrokerSettings, flow_name: str, size: int) -> None:
    async with running(settings, Graph(flow_name, (Node("a"), Node("b", needs=("a",)))), {"a": Upper, "b": Upper}) as flow:
        docs = DocList[TextDoc]([TextDoc(text="x" * size)])
        answer = await ask(flow, Call("/up", codec.encode(docs, COLUMNS), COLUMNS, accept=COLUMNS))
        assert answer.status.code is Code.OK
        assert codec.decode(answer.body, COLUMNS, TextDoc).docs[0].text == "X" * size
        await nothing_left(flow)
        blobs = await flow.bus.api(f"STREAM.INFO.{subjects.blob_stream(flow_name)}")
        await eventually(lambda: flow.bus.connected)
        assert blobs["state"]["bytes"] <= 2 * size + (512 << 10)


async def test_large_bodies_are_deleted_when_they_were_read(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("a"), Node("b", needs=("a",)))), {"a": Upper, "b": Upper}) as flow:
        docs = DocList[TextDoc]([TextDoc(text="x" * (3 << 20))])
        await ask(flow, Call("/up", codec.encode(docs, COLUMNS), COLUMNS, accept=COLUMNS))
        limit = time.monotonic() + 5
        while (await flow.bus.api(f"STREAM.INFO.{subjects.blob_stream(flow_name)}"))["state"]["messages"]:
            assert time.monotonic() < limit, "a large body was left behind"


async def test_results_that_are_too_large_are_told_beside_large_documents(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("a"), Node("b", needs=("a",)))), {"a": Grows, "b": Upper}) as flow:
        answer = await asyncio.wait_for(flow.dispatcher.send(call("/x", "a")), 10)
        assert answer.status.code is Code.TOO_LARGE and "parameters and results" in answer.status.description


async def test_a_request_over_the_size_limit_is_refused_at_once(settings: BrokerSettings, flow_name: str) -> None:
    small = settings.model_copy(update={"max_request_bytes": 1000})
    async with running(small, Graph(flow_name, (Node("twice"),)), {"twice": Twice}) as flow:
        answer = await ask(flow, Call("/x", bytes(1001), JSON))
        assert answer.status.code is Code.TOO_LARGE


@pytest.mark.feature("QU-05", "ER-09")
async def test_a_full_queue_refuses_at_once(settings: BrokerSettings, flow_name: str) -> None:
    Slow.started.clear(), Slow.release.clear()
    small = settings.model_copy(update={"max_queue_messages": 3})
    async with running(small, Graph(flow_name, (Node("slow"),)), {"slow": Slow}) as flow:
        waiting = [flow.dispatcher.send(call("/x", f"{n}")) for n in range(10)]
        started = time.monotonic()
        await eventually(lambda: sum(future.done() for future in waiting) == 7)
        assert time.monotonic() - started < 2
        Slow.release.set()
        answers = await asyncio.wait_for(asyncio.gather(*waiting), 20)
        assert sorted(answer.status.code for answer in answers) == [Code.OK] * 3 + [Code.RESOURCE_EXHAUSTED] * 7


@pytest.mark.feature("GW-25", "ER-04")
async def test_a_deadline_is_answered_in_time_and_late_work_is_not_started(settings: BrokerSettings, flow_name: str) -> None:
    Slow.started.clear(), Slow.release.clear(), Slow.runs.clear()
    async with running(settings, Graph(flow_name, (Node("slow"),)), {"slow": Slow}) as flow:
        first = flow.dispatcher.send(call("/x", "first"))
        await eventually(Slow.started.is_set)
        began = time.time()
        late = await ask(flow, call("/x", "late", deadline=began + 0.3))
        assert late.status.code is Code.DEADLINE_EXCEEDED and time.time() - began < 0.5
        Slow.release.set()
        assert (await first).status.code is Code.OK
        await nothing_left(flow)
        assert Slow.runs == ["first"]
        passed = await ask(flow, call("/x", "passed", deadline=time.time() - 1))
        assert passed.status.code is Code.DEADLINE_EXCEEDED


@pytest.mark.feature("QU-08")
async def test_a_cancelled_request_that_waits_is_dropped(settings: BrokerSettings, flow_name: str) -> None:
    Slow.started.clear(), Slow.release.clear(), Slow.runs.clear()
    async with running(settings, Graph(flow_name, (Node("slow"),)), {"slow": Slow}) as flow:
        first = flow.dispatcher.send(call("/x", "first"))
        await eventually(Slow.started.is_set)
        gone = flow.dispatcher.send(call("/x", "gone"))
        await flow.bus.flush()
        gone.cancel()
        await eventually(lambda: flow.dispatcher.open_requests == 1)
        await heard_all(flow)
        Slow.release.set()
        await first
        await nothing_left(flow)
        assert Slow.runs == ["first"] and flow.dispatcher.open_requests == 0


async def test_a_request_that_is_cancelled_as_it_arrives_gives_its_place_back(settings: BrokerSettings, flow_name: str) -> None:
    """Its endpoint may have been called and not have begun."""
    async with running(settings, Graph(flow_name, (Node("twice"),)), {"twice": Twice}) as flow:
        for round_ in range(60):
            asked = [flow.dispatcher.send(call("/x", "gone")) for _ in range(40)]  # the broker's next words may be all 40 and their end
            await asyncio.sleep(0.0002 * (round_ % 20))
            for each in asked:
                each.cancel()
        await nothing_left(flow)
        stop, task = flow.workers[0]
        stop.set("test over")
        async with asyncio.timeout(10):  # it would wait for half a minute for what it believes to hold
            await task


async def test_a_fault_of_our_own_leaves_the_request_to_its_redelivery(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not kept alive by a worker that does nothing for it."""
    run, faults = Processor.run_async, iter([MemoryError("a fault")])

    async def faulty(processor: Processor, job: Any) -> Any:
        for fault in faults:
            raise fault
        return await run(processor, job)

    monkeypatch.setattr(Processor, "run_async", faulty)
    async with running(settings, Graph(flow_name, (Node("twice", ack_wait_s=0.5),)), {"twice": Twice}) as flow:
        answer = await asyncio.wait_for(ask(flow, call("/x", "a")), 10)
        assert texts(answer.body) == ["aa"]
        await nothing_left(flow)


async def test_a_fault_with_a_request_that_stands_alone_holds_up_nobody(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next delivery gets the turn of those that run alone."""

    async def faulty(processor: Processor, job: Any) -> Any:
        raise MemoryError("a fault")

    monkeypatch.setattr(Processor, "run_async", faulty)
    async with running(settings, Graph(flow_name, (Node("twice", ack_wait_s=0.5, max_deliver=2),)), {"twice": Twice}) as flow:
        answer = await asyncio.wait_for(ask(flow, call("/x", "a")), 10)
        assert answer.status.code is Code.QUARANTINED


async def heard_all(flow: Running) -> None:
    """Return when the workers have read everything that was published so far: they answer `hello` in order."""
    heard: list[bytes] = []
    await flow.bus.listen(subjects.control(flow.graph.flow, "announce"), lambda subject, reply, header, payload: heard.append(payload))
    flow.bus.publish(subjects.control(flow.graph.flow, "hello"), b"")
    await eventually(lambda: heard)


async def test_work_longer_than_the_ack_wait_is_not_delivered_twice(settings: BrokerSettings, flow_name: str) -> None:
    Slow.started.clear(), Slow.release.clear(), Slow.runs.clear()
    graph = Graph(flow_name, (Node("slow", ack_wait_s=0.5),))
    async with running(settings, graph, {"slow": Slow}) as flow:
        flow.start_worker("slow", Slow, replica=1)
        future = flow.dispatcher.send(call("/x", "long"))
        await eventually(Slow.started.is_set)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(future), 2.0)
        Slow.release.set()
        assert (await future).status.code is Code.OK
        assert Slow.runs == ["long"]


@pytest.mark.feature("QU-02")
async def test_a_request_that_was_running_in_too_many_dead_workers_is_quarantined(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("twice", ack_wait_s=0.2, max_deliver=2),))
    async with running(settings, graph, {}) as flow:
        flow.dispatcher.catalog.absent = lambda longer_than_s: set()  # type: ignore[method-assign]
        future = flow.dispatcher.send(call("/x", "a"))
        # two deaths: delivered and marked as started, never settled
        envelope = await lost_delivery(flow, "twice")
        for starts in (1, 2):
            await flow.bus.store_wait(
                subjects.bucket_key(flow_name, f"started.twice.{subjects.digest(envelope.request_id)}"),
                b"%d" % starts,
                secrets.token_hex(4),
            )
        flow.start_worker("twice", Twice)
        answer = await asyncio.wait_for(future, 10)
        assert answer.status.code is Code.QUARANTINED
        (dead,) = await dead_letters(flow)
        assert decode(dead).request_id == envelope.request_id
        await nothing_left(flow)


async def lost_delivery(flow: Running, name: str) -> Envelope:
    """Take one delivery and let it lapse, as a worker does that dies."""
    got: list[Delivery] = []
    pull = Pull(flow.bus, subjects.work_stream(flow.graph.flow, name), "now", got.append)
    await pull.start()
    await eventually(lambda: got)
    await pull.stop()
    return decode(got[0].payload)


@pytest.mark.feature("ER-03")
async def test_an_executor_without_workers_is_named_instead_of_waiting_for_ever(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamflow.gateway.dispatch.NO_WORKER_S", 0.2)
    async with running(settings, Graph(flow_name, (Node("twice"),)), {"twice": Twice}) as flow:
        stop, task = flow.workers[0]
        stop.set("gone")
        await task
        answer = await ask(flow, call("/x", "a"))
        assert answer.status.code is Code.UNAVAILABLE and "'twice'" in answer.status.description


async def test_an_envelope_of_a_newer_release_keeps_its_unknown_keys() -> None:
    raw = encode(Envelope("r1", "f", body=b"x"))
    envelope = decode(raw)._replace(extra={"zz": [1, 2]})
    assert decode(encode(envelope)).extra == {"zz": [1, 2]}
