"""What an operator sees of the queues and does to them, on a real broker with a real worker."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from streamflow import Executor, requests
from streamflow.broker import accounts, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import Envelope, encode
from streamflow.broker.errors import Code, NotFound
from streamflow.broker.flow import Graph, Node, Polling
from streamflow.broker.permissions import Role
from streamflow.broker.purge import BATCH, purge
from streamflow.broker.queues import QueueInfo, list_queues, pause, resume, select, with_workers
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings
from streamflow.broker.topology import provision
from streamflow.cli.app import main
from streamflow.gateway.dispatch import Call
from tests.running import Running, running
from tests.waiting import eventually


class Work(Executor):
    @requests
    def work(self, docs: Any, **kwargs: Any) -> None:
        pass


async def seen(flow: Running, lane: str = "now") -> QueueInfo:
    [found] = select(await list_queues(flow.bus), flow.graph.flow, flow.graph.names[0], lane)
    return found


async def stored(flow: Running, count: int) -> QueueInfo:
    """The queue once `count` requests wait in it."""
    async with asyncio.timeout(10):
        while (queue := await seen(flow)).lag < count or not queue.bytes:
            await asyncio.sleep(0.01)
    return queue


async def test_the_lag_of_what_waits_for_a_worker(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("a_b"), Node("b", needs=("a_b",)))), {}) as flow:
        answers = [flow.dispatcher.send(Call("/")) for _ in range(3)]
        queue = await stored(flow, 3)
        assert (queue.lag, queue.pending, queue.ack_pending, queue.pulls) == (3, 3, 0, 0)
        assert queue.oldest_s is not None and 0 <= queue.oldest_s < 10
        assert queue.bytes > 0 and queue.max_bytes == settings.max_queue_bytes
        lanes = [(each.executor, each.lane) for each in select(await list_queues(flow.bus), flow_name)]
        assert lanes == [("a_b", "bulk"), ("a_b", "now"), ("b", "bulk"), ("b", "now")]
        flow.start_worker("a_b", Work)
        flow.start_worker("b", Work)
        assert [(await answer).status.code for answer in answers] == [Code.OK] * 3


async def test_shards_have_a_queue_each(settings: BrokerSettings, flow_name: str) -> None:
    node = Node("e", shards=2, retry_on=("ValueError",))
    async with running(settings, Graph(flow_name, (node,)), {}) as flow:
        await flow.bus.store_wait(subjects.fan_out(flow_name, "e", "r1"), b"x", "1")
        found = {queue.lane: queue.lag for queue in select(await list_queues(flow.bus), flow_name, "e")}
        assert found == {"now": 0, "bulk": 0, "shard-0": 1, "shard-1": 1, "again-any": 0, "again-0": 0, "again-1": 0}


async def counted(flow: Running) -> dict[str, int]:
    """Workers by lane."""
    return {queue.lane: queue.workers for queue in await with_workers(flow.bus, select(await list_queues(flow.bus), flow.graph.flow))}


async def test_workers_are_counted_not_their_pull_requests(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("e"),)), {"e": Work}) as flow:
        flow.start_worker("e", Work, replica=1, concurrency=8)
        flow.start_worker("e", Work, replica=2)
        await flow.ready_with({"e": 3})
        assert await counted(flow) == {"now": 3, "bulk": 3}
        stop, task = flow.workers.pop()
        stop.set("one less")
        await task
        assert await counted(flow) == {"now": 2, "bulk": 2}


async def test_workers_of_shards_are_counted_apart(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("e", shards=2, retry_on=("ValueError",)),)), {}) as flow:
        assert set((await counted(flow)).values()) == {0}
        for shard in (0, 1, 1):
            flow.start_worker("e", Work, shard=shard)
        await flow.ready_with({"e": 3})
        assert await counted(flow) == {"now": 3, "bulk": 3, "shard-0": 1, "shard-1": 2, "again-any": 3, "again-0": 1, "again-1": 2}


async def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(
    settings: BrokerSettings, flow_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(settings, Graph(flow_name, (Node("e"),)), {"e": Work}) as flow:
        await pause(flow.bus, await seen(flow))
        answer = flow.dispatcher.send(Call("/"))
        done, _ = await asyncio.wait([answer], timeout=2.5)
        assert not done
        assert (await seen(flow)).paused_s > 0
        assert not [record for record in caplog.records if "asking again" in record.message], "a paused queue looks lost to its worker"
        await provision(flow.bus, flow.graph, settings)
        assert (await seen(flow)).paused_s > 0, "a new version of the flow ended the pause"
        await resume(flow.bus, await seen(flow))
        assert (await asyncio.wait_for(answer, 2)).status.code is Code.OK


async def test_a_pause_ends_by_itself(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("e"),)), {"e": Work}) as flow:
        await pause(flow.bus, await seen(flow), 0.5)
        answer = await asyncio.wait_for(flow.dispatcher.send(Call("/")), 3)
        assert answer.status.code is Code.OK


async def test_whoever_waits_for_a_purged_request_is_told(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("e"),)), {}) as flow:
        answers = [flow.dispatcher.send(Call("/")) for _ in range(2 * BATCH + 5)]
        assert await purge(flow.bus, await stored(flow, len(answers))) == len(answers)
        told = {(await asyncio.wait_for(answer, 5)).status for answer in answers}
        assert {status.code for status in told} == {Code.CANCELLED}
        assert {status.executor for status in told} == {"e"}
        assert (await seen(flow)).lag == 0
        flow.start_worker("e", Work)
        assert (await asyncio.wait_for(flow.dispatcher.send(Call("/")), 10)).status.code is Code.OK


async def test_an_unknown_place_says_what_may_have_been_meant(settings: BrokerSettings, flow_name: str) -> None:
    async with running(settings, Graph(flow_name, (Node("encoder"),)), {}) as flow:
        queues = await list_queues(flow.bus)
        with pytest.raises(NotFound, match=f"did you mean '{flow_name}'"):
            select(queues, flow_name + "x")
        with pytest.raises(NotFound, match="did you mean 'encoder'"):
            select(queues, flow_name, "encodr")
        with pytest.raises(NotFound, match="there are bulk, now"):
            select(queues, flow_name, "encoder", "xyz")


async def test_the_command_line(
    settings: BrokerSettings, flow_name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def command(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, ["queue", *arguments, "--broker", settings.broker_url])
        said = capsys.readouterr()
        return code, said.out + said.err

    place = f"{flow_name}/e"
    async with running(settings, Graph(flow_name, (Node("e"),)), {}) as flow:
        answer = flow.dispatcher.send(Call("/"))
        await stored(flow, 1)
        code, said = await command("ls", flow_name)
        assert code == 0 and said.split()[:4] == ["FLOW", "EXECUTOR", "LANE", "LAG"]
        assert any(line.split()[:6] == [flow_name, "e", "now", "1", "1", "0"] for line in said.splitlines())
        code, said = await command("ls", place, "--lane", "now", "--json")
        assert json.loads(said)["lag"] == 1 and json.loads(said)["paused"] is False
        assert await command("pause", place, "--lane", "now", "--for", "1h") == (0, f"{place} now: paused\n")
        assert "paused 3" in (await command("info", place))[1]
        assert (await command("pause", place, "--for", "soon"))[0] == 2
        assert (await command("resume", place))[1].count("resumed") == 2
        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
        assert (await command("purge", place))[0] == 130
        assert (await seen(flow)).lag == 1, "no is no"
        assert await command("purge", place, "--yes") == (0, f"{place} now: removed 1\n")
        assert (await asyncio.wait_for(answer, 2)).status.code is Code.CANCELLED
        assert await command("ls", flow_name[:-1]) == (
            2,
            f"Error: flow {flow_name[:-1]!r} has no queue on this broker, did you mean {flow_name!r}?\n",
        )


async def test_an_operators_rights_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    graph, keys = Graph("shop", (Node("e"),)), tmp_path / "auth"
    accounts.write(keys, "default", [graph])
    server = EmbeddedBroker(tmp_path / "broker", limits="max_file_store: 1TB", auth=keys / accounts.AUTH_FILE)
    server.start()
    try:
        settings = BrokerSettings(broker_url=server.url, broker_credentials=str(keys / "default"))
        for role, act in ((Role.PROVISIONER, lambda bus: provision(bus, graph, settings)), (Role.GATEWAY, put)):
            bus = await Bus.connect(accounts.settings_for(settings, role, "shop"), "test")
            await act(bus)
            await bus.close()
        monkeypatch.setenv("STREAMFLOW_BROKER_CREDENTIALS", str(keys / "default"))
        for command in (["ls", "shop"], ["pause", "shop/e"], ["resume", "shop/e"], ["purge", "shop/e", "--yes"]):
            assert await asyncio.to_thread(main, ["queue", *command, "--broker", server.url]) == 0, capsys.readouterr()
        assert "shop/e now: removed 1" in capsys.readouterr().out
    finally:
        server.stop()


async def put(bus: Bus) -> None:
    subject = subjects.work("shop", "e", "now", "r1")
    await bus.store_wait(subject, encode(Envelope("r1", "shop", reply=subjects.reply("shop", "g", "r1"), record="online.r1")), "r1")


async def test_a_purge_removes_what_waits_for_the_requests_elsewhere(settings: BrokerSettings, flow_name: str) -> None:
    """Of the other branches; not where only a copy for a floating executor is purged."""
    nodes = (Node("quick"), Node("stuck"), Node("aside", floating=True), Node("end", needs=("quick", "stuck")))

    async def waiting() -> int:
        return int((await bus.api(f"STREAM.INFO.{subjects.part_stream(flow_name, 'end')}"))["state"]["messages"])

    async def three_wait() -> bool:
        return await waiting() == 3

    async def none_waits() -> bool:
        return await waiting() == 0

    async with running(settings, Graph(flow_name, nodes), {}) as flow:
        bus = flow.bus
        flow.start_worker("quick", Work)
        answers = [flow.dispatcher.send(Call("/")) for _ in range(3)]
        await eventually(three_wait, what="the quick branch is done")
        queues = await list_queues(bus)
        [copies] = select(queues, flow_name, "aside", "now")
        assert await purge(bus, copies) == 3
        await bus.flush()
        assert await waiting() == 3
        [stuck] = select(queues, flow_name, "stuck", "now")
        assert await purge(bus, stuck) == 3
        assert [(await answer).status.code for answer in answers] == [Code.CANCELLED] * 3
        await eventually(none_waits, what="the parts are removed")


async def test_a_purge_removes_the_parts_of_shards_that_were_quicker(settings: BrokerSettings, flow_name: str) -> None:
    node = Node("e", shards=2, polling={"*": Polling.ALL})

    async def waiting() -> int:
        return int((await flow.bus.api(f"STREAM.INFO.{subjects.part_stream(flow_name, 'e')}"))["state"]["messages"])

    async def one_waits() -> bool:
        return await waiting() == 1

    async def none_waits() -> bool:
        return await waiting() == 0

    async with running(settings, Graph(flow_name, (node,)), {}) as flow:
        flow.start_worker("e", Work, shard=0)
        answer = flow.dispatcher.send(Call("/"))
        await eventually(one_waits, what="one shard is done")
        [other] = select(await list_queues(flow.bus), flow_name, "e", "shard-1")
        assert await purge(flow.bus, other) == 1
        assert (await answer).status.code is Code.CANCELLED
        await eventually(none_waits, what="the part is removed")
