"""Dynamic batching with a real broker: whoever asks at the same time shares calls, and nobody notices but by the speed."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from docarray.typing import NdArray

from streamflow.broker import codec, subjects
from streamflow.broker.envelope import COLUMNS, JSON, Envelope
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call
from streamflow.workers.executor import Executor, dynamic_batching, requests
from tests.running import Running, running
from tests.waiting import eventually

pytestmark = pytest.mark.feature("DB-08", "DB-11")

WEIGHTS = np.random.default_rng(7).normal(size=(128, 128))
WAYS = ["decorator", "argument", "yaml", "yaml under its other name"]


class Vector(BaseDoc):
    tensor: NdArray[128]
    embedding: NdArray[128] | None = None


class Linear(Executor):
    sizes: list[int] = []

    @requests(on="/bar")
    def embed(self, docs: DocList[Vector], **kwargs: Any) -> DocList[Vector]:
        Linear.sizes.append(len(docs))
        time.sleep(0.005)  # a model: what gathers others
        docs.embedding = np.stack([doc.tensor for doc in docs]) @ WEIGHTS
        return docs


class Decorated(Linear):
    embed = dynamic_batching(preferred_batch_size=10, timeout=200)(Linear.embed)


class Chain(Executor):
    """Patient: waits for a full batch of 4."""

    runs: list[list[str]] = []

    @requests
    @dynamic_batching(preferred_batch_size=4, timeout=60_000, greedy=False)
    def patient(self, docs: DocList[TextDoc], parameters: dict[str, Any], **kwargs: Any) -> None:
        Chain.runs.append([doc.text for doc in docs])
        for doc in docs:
            if doc.text == "poison":
                raise ValueError("cannot take it")
            doc.text += parameters.get("suffix", "!")


class Late(Executor):
    runs: list[list[str]] = []

    @requests
    @dynamic_batching(preferred_batch_size=4, timeout=1_500, greedy=False)
    async def late(self, docs: DocList[TextDoc], **kwargs: Any) -> DocList[TextDoc]:
        Late.runs.append([doc.text for doc in docs])
        return DocList[TextDoc](TextDoc(text=doc.text * 2) for doc in docs)


class Gated(Executor):
    runs: list[list[str]] = []
    started = threading.Event()
    release = threading.Event()

    @requests
    @dynamic_batching(preferred_batch_size=32)
    def gated(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        Gated.runs.append([doc.text for doc in docs])
        Gated.started.set()
        assert Gated.release.wait(30)
        if any(doc.text.startswith("poison") for doc in docs):
            raise ValueError("cannot take it")


@pytest.fixture(autouse=True)
def forget() -> None:
    for runs in (Linear.sizes, Chain.runs, Late.runs, Gated.runs):
        runs.clear()
    Gated.started.clear(), Gated.release.clear()


def call(*texts: str, **options: Any) -> Call:
    return Call("/x", json.dumps({"data": [{"text": text} for text in texts]}).encode(), JSON, **options)


def texts(answer: Envelope) -> list[str]:
    assert answer.status.code is Code.OK, answer.status
    return [doc["text"] for doc in json.loads(bytes(answer.body))]


async def answers(*futures: asyncio.Future[Envelope]) -> list[Envelope]:
    return await asyncio.wait_for(asyncio.gather(*futures), 20)


async def left(flow: Running) -> int:
    infos = [await flow.bus.api(f"STREAM.INFO.{subjects.work_stream(flow.graph.flow, name)}") for name in flow.graph.names]
    return sum(info["state"]["messages"] for info in infos)


def start(flow: Running, way: str, folder: Path) -> None:
    options = {"/bar": {"preferred_batch_size": 10, "timeout": 200}}
    if way == "decorator":
        flow.start_worker("linear", Decorated)
    elif way == "argument":
        flow.start_worker("linear", Linear, uses_dynamic_batching=options)
    else:
        key = "uses_dynamic_batching" if way == "yaml" else "dynamic_batching"
        file = folder / "exec.yml"
        file.write_text(f"jtype: Linear\n{key}: {json.dumps(options)}\n")
        flow.start_worker("linear", str(file))


@pytest.mark.feature("DB-04")
@pytest.mark.parametrize("way", WAYS)
async def test_calls_hold_at_most_ten_documents_and_everybody_gets_their_own(
    settings: BrokerSettings, flow_name: str, tmp_path: Path, way: str
) -> None:
    async with running(settings, Graph(flow_name, (Node("linear"),)), {}) as flow:
        start(flow, way, tmp_path)
        await flow.ready()
        inputs = [DocList[Vector](Vector(tensor=np.full(128, n + k / 10)) for k in range(n % 4)) for n in range(40)]
        calls = [Call("/bar", codec.encode(docs, COLUMNS), COLUMNS, accept=COLUMNS) for docs in inputs]
        for docs, answer in zip(inputs, await answers(*map(flow.dispatcher.send, calls)), strict=True):
            outputs = codec.decode(answer.body, COLUMNS, Vector).docs
            assert [doc.id for doc in outputs] == [doc.id for doc in docs]
            for mine, given in zip(outputs, docs, strict=True):
                assert np.allclose(mine.embedding, given.tensor @ WEIGHTS)
        assert sum(Linear.sizes) == 60 and max(Linear.sizes) == 10 and len(Linear.sizes) < 20
        assert await left(flow) == 0


async def test_a_poison_request_fails_alone(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("gated"),)), {"gated": Gated}) as flow:
        first = flow.dispatcher.send(call("first"))
        await eventually(Gated.started.is_set)
        waiting = [flow.dispatcher.send(call(f"poison{n}" if n in (5, 17) else f"ok{n}")) for n in range(32)]
        await all_held(flow, 33)
        Gated.release.set()
        assert texts((await answers(first))[0]) == ["first"]
        for n, answer in enumerate(await answers(*waiting)):
            assert answer.status.code is (Code.EXECUTOR_ERROR if n in (5, 17) else Code.OK)
            if n in (5, 17):
                assert answer.status.description == "ValueError('cannot take it')"
            else:
                assert texts(answer) == [f"ok{n}"]
        assert len(Gated.runs[1]) == 32 and ["poison5"] in Gated.runs
        assert max(sum(f"ok{n}" in run for run in Gated.runs) for n in range(32)) <= 6
        assert await left(flow) == 0


async def all_held(flow: Running, count: int) -> None:
    """Return when `count` requests are with the worker."""
    name = flow.graph.names[0]
    consumer = f"CONSUMER.INFO.{subjects.work_stream(flow.graph.flow, name)}.{subjects.work_durable('now')}"
    limit = time.monotonic() + 10
    while (info := await flow.bus.api(consumer))["num_ack_pending"] < count:
        assert time.monotonic() < limit, f"{info['num_ack_pending']} of {count} requests are with the worker"


@pytest.mark.feature("DB-06")
async def test_parameters_in_the_body_separate_batches(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("chain"),))
    async with running(settings, graph, {"chain": Chain}) as flow:
        first = [flow.dispatcher.send(call(f"a{n}", parameters={"suffix": "1"})) for n in range(4)]
        other = [flow.dispatcher.send(call(f"b{n}", parameters={"suffix": "9", "chain__suffix": "2"})) for n in range(4)]
        got = await answers(*first, *other)
        assert [texts(answer) for answer in got] == [[f"a{n}1"] for n in range(4)] + [[f"b{n}2"] for n in range(4)]
        assert sorted(map(sorted, Chain.runs)) == [[f"a{n}" for n in range(4)], [f"b{n}" for n in range(4)]]


async def test_batches_of_a_chain_hand_on_what_they_do_not_know(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("one"), Node("two", needs=("one",))))
    async with running(settings, graph, {"one": Chain, "two": Chain}) as flow:
        bodies = [json.dumps({"data": [{"text": f"a{n}", "mine": n}, {"text": f"b{n}"}]}).encode() for n in range(6)]
        got = await answers(*(flow.dispatcher.send(Call("/x", body, JSON)) for body in bodies))
        assert [texts(answer) for answer in got] == [[f"a{n}!!", f"b{n}!!"] for n in range(6)]
        assert [[doc.get("mine") for doc in json.loads(bytes(answer.body))] for answer in got] == [[n, None] for n in range(6)]
        assert [len(run) for run in Chain.runs] == [4] * 6


@pytest.mark.feature("DB-10")
async def test_a_stopping_worker_runs_what_waits(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("chain"),)), {"chain": Chain}) as flow:
        future = flow.dispatcher.send(call("a"))
        await all_held(flow, 1)
        assert not Chain.runs
        stop, task = flow.workers[0]
        stop.set("test")
        assert texts((await answers(future))[0]) == ["a!"]
        assert await asyncio.wait_for(task, 10) == 0
        assert await left(flow) == 0


async def test_who_gives_up_while_waiting_is_not_in_the_batch(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("chain"),)), {"chain": Chain}) as flow:
        late = flow.dispatcher.send(call("late", deadline=time.time() + 0.3))
        gone, kept = flow.dispatcher.send(call("gone")), flow.dispatcher.send(call("kept"))
        await all_held(flow, 3)
        gone.cancel()
        assert (await answers(late))[0].status.code is Code.DEADLINE_EXCEEDED
        await heard_all(flow)
        assert not Chain.runs
        flow.workers[0][0].set("run what waits")
        assert texts((await answers(kept))[0]) == ["kept!"]
        assert Chain.runs == [["kept"]]
        await eventually(lambda: flow.dispatcher.open_requests == 0)
        assert await left(flow) == 0


async def heard_all(flow: Running) -> None:
    """Return when the workers have read everything that was published so far: they answer `hello` in order."""
    heard: list[bytes] = []
    await flow.bus.listen(subjects.control(flow.graph.flow, "announce"), lambda subject, reply, header, payload: heard.append(payload))
    flow.bus.publish(subjects.control(flow.graph.flow, "hello"), b"")
    await eventually(lambda: heard)


async def test_waiting_longer_than_the_ack_wait_is_not_delivered_twice(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("late", ack_wait_s=0.4),))
    async with running(settings, graph, {"late": Late}) as flow:
        started = time.monotonic()
        got = await answers(*(flow.dispatcher.send(call(text)) for text in "ab"))
        assert [texts(answer) for answer in got] == [["aa"], ["bb"]]
        assert time.monotonic() - started >= 1.4
        assert [sorted(run) for run in Late.runs] == [["a", "b"]] and await left(flow) == 0


async def test_a_lone_request_waits_for_nobody(settings: BrokerSettings, flow_name: str) -> None:
    Gated.release.set()
    async with running(settings, Graph(flow_name, (Node("gated"),)), {"gated": Gated}) as flow:
        await answers(flow.dispatcher.send(call("warm")))
        started = time.monotonic()
        for n in range(20):
            await answers(flow.dispatcher.send(call(f"{n}")))
        assert time.monotonic() - started < 2, "the default timeout is 10 s: nobody waited for it"
        assert [len(run) for run in Gated.runs] == [1] * 21
