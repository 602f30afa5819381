"""Shards' parts from hand to hand, and how they come to meet in the stream when that fails."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import JSON, Envelope, decode, encode
from streamflow.broker.errors import Code
from streamflow.broker.flow import Graph, Node, Polling
from streamflow.broker.pull import Delivery, Pull
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.gateway.dispatch import Call
from streamflow.workers import forward, gathering
from streamflow.workers.executor import Executor, requests
from streamflow.workers.outgoing import Identity
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


async def test_a_replica_that_has_no_requests_forgets_the_parts_of_its_neighbours(
    bus: Bus, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes those back: if they took up its room for good, it would refuse parts for all replicas of its shard."""
    monkeypatch.setattr(gathering, "MAX_HELD_BYTES", 1000)
    monkeypatch.setattr(gathering, "HOLD_S", 0.1)
    idle = gathering.Gathering(bus, Identity(flow_name, "s", "s/shard-0/rep-1", "b", 0), lambda *_: None, lambda _: None)
    await idle.start()
    refused: asyncio.Queue[str] = asyncio.Queue()
    inbox = bus.new_inbox()
    await bus.listen(inbox + ".*", lambda subject, _reply, _header, _words: refused.put_nowait(subject.decode().removeprefix(f"{inbox}.")))

    def send(request_id: str, what: str = "part") -> None:
        part = Envelope(request_id, flow_name, hop="s", part="1", body=bytes(600))
        bus.publish(subjects.gather(flow_name, "s", "0", what), encode(part), f"{inbox}.{request_id}")

    for request_id in ("one", "two", "three"):
        send(request_id)
    assert await asyncio.wait_for(refused.get(), 5) == "three"
    await asyncio.sleep(gathering.HOLD_S)
    send("four")
    send("five", "back")
    assert await asyncio.wait_for(refused.get(), 5) == "five"


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


async def test_a_part_of_a_retry_waits_for_its_others_whatever_has_been_acked_on_the_fan_out(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retries lie in a stream with sequences of their own. Since the flow has lost its `retry_on` only the subject tells: a part of one
    would seem to be of a request that shard 0 has acked long ago."""
    monkeypatch.setattr(forward, "TIDY_S", (0.05, 0.2))
    before = Graph(flow_name, (Node("s", shards=2, polling={"*": Polling.ALL}, retry_on=("OSError",)),))
    async with running(settings, before, {}) as flow:
        await provision(flow.bus, graph_of(flow_name, 2), settings)
        await serve(flow, 0)
        await flow.ready_with({"s": 1})
        asked = asyncio.gather(*(ask(flow) for _ in range(5)))
        await eventually(lambda: acked_by(flow, 0, 5), what="shard 0 has acked five requests")
        retried = Envelope("retried", flow_name, before.version, "/search", hop="s", content_type=JSON, accept=JSON, retried=1,
                           reply=subjects.reply(flow_name, "me", "retried"), body=b'{"data":[{"text":"q"}]}')  # fmt: skip
        await try_again(flow, retried, shard=1, deaths=1)
        await serve(flow, 1)
        assert all(whole(answer, 2) for answer in await asked)
        part = subjects.part(flow_name, "s", "retried", "gather", "1")

        async def waits() -> bool:
            return await flow.bus.direct_get(subjects.part_stream(flow_name, "s"), part) is not None

        await eventually(waits, what="the part of shard 1 waits")
        for _ in range(40):
            await asyncio.sleep(0.01)
            assert await waits()
        answers: asyncio.Queue[Envelope] = asyncio.Queue()
        await flow.bus.listen(retried.reply, lambda _subject, _reply, _header, payload: answers.put_nowait(decode(payload)))
        await try_again(flow, retried, shard=0)
        assert whole(await asyncio.wait_for(answers.get(), 10), 2)


@pytest.mark.parametrize("runs", [1, 2])
async def test_a_part_that_came_again_in_vain_is_removed_but_not_one_of_a_second_run(
    settings: BrokerSettings, flow_name: str, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    """Shard 0 is through with the request; its answer was lost, so the gateway may have published it again meanwhile."""
    monkeypatch.setattr(forward, "TIDY_S", (0.5,))
    async with running(settings, graph_of(flow_name, 2), {}) as flow:
        request = Envelope("lost", flow_name, flow.graph.version, "/search", hop="s", content_type=JSON, body=b'{"data":[{"text":"q"}]}')
        stream, parts = subjects.fan_out_stream(flow_name, "s"), subjects.part_stream(flow_name, "s")
        await flow.bus.store_wait(subjects.fan_out(flow_name, "s", "lost"), encode(request), "lost")
        await deliver(flow, stream, subjects.shard_durable(0), Delivery.ack)
        await deliver(flow, stream, subjects.shard_durable(1), Delivery.nak)
        await serve(flow, 1)
        part = subjects.part(flow_name, "s", "lost", "gather", "1")

        async def waits() -> bool:
            return await flow.bus.direct_get(parts, part) is not None

        await eventually(waits, what="the part waits")
        if runs == 1:
            await eventually(lambda: gone(waits), what="the part is removed")
            return
        await flow.bus.store_wait(part, encode(request._replace(run="2", part="1", expected=("0", "1"))), "second run")
        for _ in range(80):
            await asyncio.sleep(0.01)
            assert await waits()


async def gone(waits: Callable[[], Awaitable[bool]]) -> bool:
    return not await waits()


async def deliver(flow: Running, stream: str, durable: str, settle: Callable[[Delivery], None]) -> None:
    """Hand the next message to somebody who does no more than `settle` it."""
    seen: asyncio.Queue[Delivery] = asyncio.Queue()
    pull = Pull(flow.bus, stream, durable, seen.put_nowait)
    await pull.start()
    delivery = await asyncio.wait_for(seen.get(), 5)
    await pull.stop()
    settle(delivery)
    await flow.bus.flush()


async def acked_by(flow: Running, shard: int, sequence: int) -> bool:
    info = await flow.bus.consumer(subjects.fan_out_stream(flow.graph.flow, "s"), subjects.shard_durable(shard))
    return info is not None and info["ack_floor"]["stream_seq"] >= sequence


async def try_again(flow: Running, request: Envelope, shard: int, deaths: int = 0) -> None:
    """Have the retry of `request` delivered to `shard`, as if so many workers had died with it in hand."""
    name, owner = flow.graph.flow, str(shard)
    await flow.bus.store_wait(subjects.again(name, "s", owner, request.ticket), encode(request), f"again/{owner}")
    for _ in range(deaths):
        await deliver(flow, subjects.retry_stream(name, "s"), subjects.retry_durable(owner), Delivery.nak)
