"""Retries: exceptions named in `retry_on` are tried again by the broker's schedule, and nobody waits for them meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from typing import Any

import pytest
from docarray import DocList
from docarray.documents import TextDoc
from hypothesis import given
from hypothesis import strategies as st

from streamflow.broker import codec, subjects
from streamflow.broker.envelope import COLUMNS, JSON, Envelope
from streamflow.broker.errors import Code, FlowError, Status
from streamflow.broker.flow import Graph, Node, Polling
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call
from streamflow.workers.executor import Executor, requests
from streamflow.workers.invoke import Context
from streamflow.workers.retries import Retries
from tests.running import Running, running
from tests.waiting import eventually

FAST = {"backoff_s": 0.05, "max_backoff_s": 0.2}


class Flaky(Executor):
    """Raises for the first `times` attempts at each text that does not begin with "good"."""

    times = 2
    error: type[Exception] = ConnectionError
    seen: dict[str, list[tuple[int, int]]] = defaultdict(list)  # text -> attempts and fencing tokens

    @requests
    def run(self, docs: DocList[TextDoc], context: Context, **kwargs: Any) -> None:
        for doc in docs:
            text = doc.text
            Flaky.seen[text].append((context.attempt, context.fencing_token))
            if not text.startswith("good") and len(Flaky.seen[text]) <= Flaky.times:
                raise Flaky.error(f"attempt {context.attempt}")
            doc.text += "!"


class Last(Executor):
    @requests
    def run(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        for doc in docs:
            doc.text += "?"


class Sharded(Executor):
    """Each shard fails once."""

    runs: list[int] = []

    @requests(on="/search")
    def run(self, docs: DocList[TextDoc], **kwargs: Any) -> None:
        shard = int(self.runtime_args.shard_id)
        Sharded.runs.append(shard)
        if Sharded.runs.count(shard) == 1:
            raise TimeoutError("not yet")
        for doc in docs:
            doc.text += str(shard)


class Words(Executor):
    """A generator that fails once in the middle."""

    failed = False

    @requests(on="/words")
    def words(self, doc: TextDoc, **kwargs: Any) -> Any:
        for number, word in enumerate((doc.text or "").split()):
            if number == 2 and not Words.failed:
                Words.failed = True
                raise ConnectionError("in the middle")
            yield TextDoc(text=word)

    words.__annotations__["return"] = TextDoc


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Flaky.times, Flaky.error = 2, ConnectionError
    Flaky.seen.clear(), Sharded.runs.clear()
    Words.failed = False


def call(*texts: str, endpoint: str = "/x", **options: Any) -> Call:
    return Call(endpoint, json.dumps({"data": [{"text": text} for text in texts]}).encode(), JSON, **options)


def texts_of(answer: Envelope) -> list[str]:
    return [doc["text"] for doc in json.loads(bytes(answer.body))]


async def ask(flow: Running, request: Call) -> Envelope:
    return await asyncio.wait_for(flow.dispatcher.send(request), 20)


async def left(flow: Running, *streams: str) -> int:
    return sum([(await flow.bus.api(f"STREAM.INFO.{stream}"))["state"]["messages"] for stream in streams])


async def test_what_fails_twice_succeeds_the_third_time(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("flaky", retry_on=("OSError",), **FAST), Node("next", needs=("flaky",))))
    async with running(settings, graph, {"flaky": Flaky, "next": Last}) as flow:
        answer = await ask(flow, call("a"))

        assert texts_of(answer) == ["a!?"]
        attempts, tokens = zip(*Flaky.seen["a"], strict=True)
        assert attempts == (1, 2, 3) and list(tokens) == sorted(set(tokens))
        assert [(hop.executor, hop.attempt) for hop in answer.trail] == [("flaky", 3), ("next", 1)]
        for stream in (subjects.work_stream, subjects.retry_stream):
            await until_left(flow, stream(flow_name, "flaky"), 0)


async def test_after_the_last_attempt_the_error_is_the_answer(settings: BrokerSettings, flow_name: str) -> None:
    Flaky.times = 9
    graph = Graph(flow_name, (Node("flaky", retry_on=("ConnectionError",), retries=1, **FAST),))
    async with running(settings, graph, {"flaky": Flaky}) as flow:
        answer = await ask(flow, call("a"))

        assert answer.status.code is Code.EXECUTOR_ERROR and answer.status.exception == "ConnectionError"
        assert answer.status.description == "ConnectionError('attempt 2') (given up after 2 attempts of 2)"
        assert len(Flaky.seen["a"]) == 2


async def test_other_exceptions_are_answered_at_once(settings: BrokerSettings, flow_name: str) -> None:
    Flaky.error = ValueError
    graph = Graph(flow_name, (Node("flaky", retry_on=("ConnectionError",), **FAST),))
    async with running(settings, graph, {"flaky": Flaky}) as flow:
        answer = await ask(flow, call("a"))

        assert answer.status.description == "ValueError('attempt 1')" and len(Flaky.seen["a"]) == 1


async def test_waiting_requests_hold_up_nobody(settings: BrokerSettings, flow_name: str) -> None:
    """200 requests wait for seconds; the worker is idle meanwhile and answers others."""
    Flaky.times = 1
    graph = Graph(flow_name, (Node("flaky", retry_on=("ConnectionError",), backoff_s=3.0),))
    async with running(settings, graph, {"flaky": Flaky}) as flow:
        waiting = [flow.dispatcher.send(call(f"bad {number}")) for number in range(200)]
        await eventually(lambda: len(Flaky.seen) == 200)
        began = time.monotonic()
        for number in range(20):
            assert texts_of(await ask(flow, call(f"good {number}"))) == [f"good {number}!"]
        assert time.monotonic() - began < 1.0 and not any(future.done() for future in waiting)

        answers = await asyncio.wait_for(asyncio.gather(*waiting), 20)
        assert [texts_of(answer) for answer in answers] == [[f"bad {number}!"] for number in range(200)]


async def test_a_deadline_before_the_next_attempt_ends_the_trying(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("flaky", retry_on=("ConnectionError",), backoff_s=60.0),))
    async with running(settings, graph, {"flaky": Flaky}) as flow:
        answer = await ask(flow, call("a", deadline=time.time() + 5))

        assert answer.status.code is Code.EXECUTOR_ERROR
        assert answer.status.description.endswith("(given up after 1 attempt of 4)")


async def test_waiting_survives_the_worker_and_the_broker(own_broker: EmbeddedBroker, flow_name: str) -> None:
    Flaky.times = 1
    graph = Graph(flow_name, (Node("flaky", retry_on=("ConnectionError",), backoff_s=2.0, max_backoff_s=2.0),))
    async with running(BrokerSettings(broker_url=own_broker.url), graph, {"flaky": Flaky}) as flow:
        future = flow.dispatcher.send(call("a"))
        await eventually(lambda: Flaky.seen["a"])
        await until_left(flow, subjects.work_stream(flow_name, "flaky"), 0)
        stop, task = flow.workers[0]
        stop.set("gone")
        await task
        own_broker.kill()
        await asyncio.to_thread(own_broker.start)
        flow.start_worker("flaky", Flaky, replica=1)

        answer = await asyncio.wait_for(future, 20)
        assert texts_of(answer) == ["a!"] and [attempt for attempt, _ in Flaky.seen["a"]] == [1, 2]


async def until_left(flow: Running, stream: str, messages: int) -> None:
    limit = time.monotonic() + 5
    while await left(flow, stream) != messages:
        assert time.monotonic() < limit, f"{stream} still holds something"


async def test_a_body_in_the_object_store_is_there_for_the_next_attempt(settings: BrokerSettings, flow_name: str) -> None:
    Flaky.times = 1
    graph = Graph(flow_name, (Node("flaky", retry_on=("ConnectionError",), **FAST),))
    async with running(settings, graph, {"flaky": Flaky}) as flow:
        docs = DocList[TextDoc]([TextDoc(text="x" * (2 << 20))])
        answer = await ask(flow, Call("/x", codec.encode(docs, COLUMNS), COLUMNS, accept=COLUMNS))

        assert answer.status.code is Code.OK and [attempt for attempt, _ in Flaky.seen["x" * (2 << 20)]] == [1, 2]
        await until_left(flow, subjects.blob_stream(flow_name), 0)


async def test_each_shard_is_tried_again_by_itself(settings: BrokerSettings, flow_name: str) -> None:
    node = Node("sharded", shards=2, polling={"/search": Polling.ALL}, retry_on=("TimeoutError",), **FAST)
    async with running(settings, Graph(flow_name, (node,)), {}) as flow:
        for shard in range(2):
            flow.start_worker("sharded", Sharded, shard=shard)
        await flow.ready_with({"sharded": 2})
        answer = await ask(flow, call("a", endpoint="/search"))

        assert answer.status.code is Code.OK, answer.status
        assert sorted(Sharded.runs) == [0, 0, 1, 1]


async def test_a_stream_goes_on_where_it_failed(settings: BrokerSettings, flow_name: str) -> None:
    graph = Graph(flow_name, (Node("words", retry_on=("ConnectionError",), **FAST),))
    async with running(settings, graph, {"words": Words}) as flow:
        parts = [part async for part in flow.dispatcher.stream(call("a b c d", endpoint="/words"))]

        assert [texts_of(part)[0] for part in parts[:-1]] == ["a", "b", "c", "d"]
        assert parts[-1].status.code is Code.OK and parts[-1].final


@given(st.integers(1, 60), st.floats(0.01, 10), st.floats(0.01, 100), st.integers(0, 70))
def test_the_waiting_doubles_within_its_bounds_and_ends(limit: int, first_s: float, longest_s: float, attempt: int) -> None:
    retries = Retries.of(Node("x", retry_on=("E",), retries=limit, backoff_s=first_s, max_backoff_s=longest_s))
    delay_s = retries.next_s(Envelope("r"), attempt + 1)

    if attempt >= limit:
        assert delay_s is None
    else:
        whole_s = min(first_s * 2.0**attempt, max(first_s, longest_s))
        assert delay_s is not None and whole_s / 2 <= delay_s <= whole_s


def test_how_often_when_it_is_not_said() -> None:
    assert Retries.of(Node("x", retries=5)).limit == 0  # no exception is named
    assert Retries.of(Node("x", retry_on=("E",))).limit == 3
    assert Retries.of(Node("x", retry_on=("E",), retries=-1, replicas=4)).limit == 4
    assert Retries().told(Status(Code.EXECUTOR_ERROR, "x"), 1).description == "x"


@pytest.mark.parametrize("name", ["backoff_s", "max_backoff_s"])
def test_a_waiting_time_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(FlowError, match=f"'x': {name} is 0.0, it must be above 0"):
        Graph("f", (Node("x", **{name: 0.0}),)).validate()
