"""Shards' parts from hand to hand, and how they come to meet in the stream when that fails."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from streamflow.broker import subjects
from streamflow.broker.envelope import JSON, Envelope
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node, Polling
from streamflow.broker.settings import BrokerSettings
from streamflow.gateway.dispatch import Call
from streamflow.workers import gathering
from streamflow.workers.executor import Executor, requests
from tests.running import Running, running
from tests.waiting import eventually


class Match(BaseDoc):
    shard: int


class Query(BaseDoc):
    text: str = ""
    matches: DocList[Match] = DocList[Match]()


class Shard(Executor):
    """Says which shard it is; `slow` seconds late where it is shard 1, up to `jitter` seconds late everywhere."""

    @requests
    async def search(self, docs: DocList[Query], parameters: dict[str, Any], **kwargs: Any) -> None:
        await asyncio.sleep(
            parameters.get("slow", 0.0) * (self.runtime_args.shard_id == 1) + random.random() * parameters.get("jitter", 0.0)
        )
        for doc in docs:
            doc.matches.append(Match(shard=self.runtime_args.shard_id))


def graph_of(flow_name: str, shards: int = 3) -> Graph:
    return Graph(flow_name, (Node("s", shards=shards, polling={"*": Polling.ALL}),))


async def serve(flow: Running, *shards: int) -> None:
    for shard in shards:
        flow.start_worker("s", Shard, shard=shard)


async def ask(flow: Running, **parameters: float) -> Envelope:
    deadline = time.time() + parameters.pop("within") if "within" in parameters else 0.0
    body = json.dumps({"data": [{"text": "q"}], "parameters": parameters}).encode()
    return await asyncio.wait_for(flow.dispatcher.send(Call("/search", body, JSON, parameters=parameters, deadline=deadline)), 20)


def whole(answer: Envelope, shards: int = 3) -> bool:
    assert answer.status.code is Code.OK, answer.status
    return [[match["shard"] for match in doc["matches"]] for doc in json.loads(bytes(answer.body))] == [list(range(shards))]


async def stored(flow: Running) -> dict[str, int]:
    """State of the stream in which parts meet."""
    state: dict[str, int] = (await flow.bus.api(f"STREAM.INFO.{subjects.part_stream(flow.graph.flow, 's')}"))["state"]
    return state


async def test_parts_that_come_together_are_not_stored(settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "HOLD_S", 20.0)
    monkeypatch.setattr(gathering, "NEW_S", 0.0)
    async with running(settings, graph_of(flow_name), {}) as flow:
        await serve(flow, 0, 1, 2)
        await flow.ready()
        answers = [await ask(flow) for _ in range(20)] + list(await asyncio.gather(*(ask(flow) for _ in range(100))))
        assert all(map(whole, answers))
        assert (await stored(flow))["last_seq"] == 0


async def test_a_slow_shard_meets_the_others_in_the_stream(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, graph_of(flow_name), {}) as flow:
        await serve(flow, 0, 1, 2)
        await flow.ready()
        answers = await asyncio.gather(*(ask(flow, slow=gathering.HOLD_S + 0.3) for _ in range(12)))
        assert all(map(whole, answers))
        state = await stored(flow)
        assert state["last_seq"] >= 24 and state["messages"] == 0


async def test_a_shard_without_workers_gets_its_requests_when_it_has_one(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens where a third of the parts are to be collected: the broker says so, and they are stored at once."""
    monkeypatch.setattr(gathering, "HOLD_S", 3.0)
    async with running(settings, graph_of(flow_name), {}) as flow:
        await serve(flow, 0, 2)
        await flow.ready_with({"s": 2})
        asked = asyncio.gather(*(ask(flow) for _ in range(30)))

        async def some_wait() -> bool:
            return (await stored(flow))["messages"] >= 2

        await eventually(some_wait, 2.0, "parts of which nobody listens are stored")
        await serve(flow, 1)
        assert all(map(whole, await asked))
        assert (await stored(flow))["messages"] == 0


async def test_a_late_answer_names_only_the_shard_that_is_late(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, graph_of(flow_name), {}) as flow:
        await serve(flow, 0, 1, 2)
        await flow.ready()
        late = await asyncio.gather(*(ask(flow, slow=3.0, within=1.2) for _ in range(3)))
        assert all(answer.status.code is Code.DEADLINE_EXCEEDED for answer in late)
        texts = [answer.status.description for answer in late]  # where the broker does not tell at once, they name the executor alone
        assert any("shard 1 of executor 's' did not answer" in text for text in texts), texts
        assert not any("shard 0" in text or "shard 2" in text for text in texts), texts


@pytest.mark.parametrize("replicas", [1, 2])
async def test_whoever_gives_up_first_every_request_goes_on_once_and_leaves_nothing(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch, replicas: int
) -> None:
    """Parts of up to 20 ms are held for 10: some meet from hand to hand, some in the stream, some have begun to do both."""
    monkeypatch.setattr(gathering, "HOLD_S", 0.01)
    monkeypatch.setattr(gathering, "NEW_S", 0.0)
    async with running(settings, graph_of(flow_name), {}) as flow:
        for _ in range(replicas):
            await serve(flow, 0, 1, 2)
        await flow.ready_with({"s": 3 * replicas})
        for _ in range(6):
            assert all(map(whole, await asyncio.gather(*(ask(flow, jitter=0.02) for _ in range(50)))))

        async def nothing_left() -> bool:
            return (await stored(flow))["messages"] == 0

        await eventually(nothing_left, what="no part is left")
        assert 0 < (await stored(flow))["last_seq"] < 3 * 300


async def test_a_shards_worker_that_is_exchanged_makes_nobody_wait(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever leaves refuses parts of requests that it will not have; whoever comes does not wait for parts that were sent before."""
    monkeypatch.setattr(gathering, "HOLD_S", 8.0)
    async with running(settings, graph_of(flow_name), {}) as flow:
        await serve(flow, 0, 1, 2)
        await flow.ready()
        seconds: list[float] = []

        async def client() -> None:
            while not over.is_set():
                began = time.monotonic()
                assert whole(await ask(flow, jitter=0.005))
                seconds.append(time.monotonic() - began)

        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(client())
            for shard in (0, 1):
                stop, ended = flow.workers[shard]
                stop.set("exchanged")
                await ended
                await serve(flow, shard)
                before = len(seconds)
                await eventually(lambda before=before: len(seconds) > before + 200, 20.0, "requests are answered again")  # type: ignore[misc]
            over.set()
        assert max(seconds) < 4.0, max(seconds)


async def test_without_room_to_hold_parts_they_are_stored(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "MAX_HELD_BYTES", 0)
    async with running(settings, graph_of(flow_name), {}) as flow:
        await serve(flow, 0, 1, 2)
        await flow.ready()
        assert all(map(whole, await asyncio.gather(*(ask(flow) for _ in range(20)))))
        assert await stored(flow) | {"last_seq": 60, "messages": 0} == await stored(flow)


async def test_a_part_that_comes_again_is_told_that_its_request_has_gone_on(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker died before it was told: the message is delivered again, and the part has nobody to meet any more."""
    monkeypatch.setattr(gathering, "HOLD_S", 20.0)
    monkeypatch.setattr(gathering, "NEW_S", 0.0)
    async with running(settings, graph_of(flow_name), {}) as flow:
        await serve(flow, 0, 1, 2)
        await flow.ready()
        sent: list[tuple[bytes, bytes]] = []
        for shard in "012":
            await flow.bus.listen(
                subjects.gather(flow_name, "s", shard, "part"), lambda subject, _reply, _header, part: sent.append((subject, part))
            )
        assert all(map(whole, [await ask(flow) for _ in range(10)]))
        await eventually(lambda: len(sent) == 20, what="two of three parts are sent for each request")
        told: list[bytes] = []
        inbox = flow.bus.new_inbox()
        await flow.bus.listen(inbox + ".*", lambda _subject, _reply, _header, words: told.append(words))
        for number, (subject, part) in enumerate(sent):
            flow.bus.publish(subject.decode(), part, f"{inbox}.{number}")
        await eventually(lambda: len(told) == 20, what="each part is answered")
        assert sorted(told) == sorted(b"+ACK %d" % number for number in range(20))
        assert (await stored(flow))["last_seq"] == 0
