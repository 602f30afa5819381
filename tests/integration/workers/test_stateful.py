"""Stateful executors: three replicas in one loop, with a real broker and a real dispatcher."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from docarray import BaseDoc, DocList

from streamflow import Executor, requests, write
from streamflow.broker import accounts, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import JSON, Envelope, decode, encode
from streamflow.broker.errors import Code, FlowError, Overloaded
from streamflow.broker.flow import Graph, Node, Polling
from streamflow.broker.lifecycle import Stop
from streamflow.broker.permissions import Role
from streamflow.broker.pull import Delivery, Pull
from streamflow.broker.server import EmbeddedBroker
from streamflow.broker.settings import BrokerSettings, WorkerSettings
from streamflow.broker.state_orders import Kind, Progress, State
from streamflow.broker.topology import provision
from streamflow.gateway.dispatch import Call, Dispatcher
from streamflow.gateway.state_desk import StateDesk
from streamflow.workers.service import Worker
from streamflow.workers.snapshots import Snapshots
from streamflow.workers.write_log import Trimmed, WriteLog
from tests.running import Running, running
from tests.waiting import eventually


class Item(BaseDoc):
    text: str = ""


class Notes(Executor):
    """Keeps texts in the order they came, and how often each did."""

    living: dict[int, Notes] = {}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.texts: list[str] = []
        self.tokens: list[int] = []
        Notes.living[int(self.runtime_args.replica)] = self

    @write
    @requests(on="/add")
    def add(self, docs: DocList[Item], context: Any) -> DocList[Item]:
        if any(doc.text == "bad" for doc in docs):
            raise ValueError("no bad ones")
        self.texts += [doc.text for doc in docs]
        self.tokens.append(context.fencing_token)
        return DocList[Item]([Item(text=f"{doc.text}:{len(self.texts)}") for doc in docs])

    @requests(on="/all")
    def all(self, **_: Any) -> DocList[Item]:
        return DocList[Item]([Item(text=text) for text in self.texts])

    def snapshot(self, snapshot_dir: str) -> None:
        Path(snapshot_dir).write_text(json.dumps([self.texts, self.tokens]))

    def restore(self, snapshot_dir: str) -> None:
        self.texts, self.tokens = json.loads(Path(snapshot_dir).read_text())


def call(endpoint: str, *texts: str, **more: Any) -> Call:
    return Call(endpoint, json.dumps({"data": [{"text": text} for text in texts]}).encode(), JSON, **more)


async def post(flow: Running, endpoint: str, *texts: str, **more: Any) -> list[str]:
    answer = await asyncio.wait_for(flow.dispatcher.send(call(endpoint, *texts, **more)), 10)
    assert answer.status.code is Code.OK, answer.status
    return [doc["text"] for doc in json.loads(bytes(answer.body))]


async def done(states: StateDesk, kind: Kind, order: str) -> None:
    progress: Progress | None = None

    async def is_over() -> bool:
        nonlocal progress
        progress = await states.progress(kind, order)
        return progress is None or progress.state is not State.RUNNING

    await eventually(is_over, what=f"the end of {order}")
    assert progress is not None and progress.state is State.SUCCEEDED, progress


async def grow(flow: Running, kind: type[Executor], replicas: range, **options: Any) -> None:
    for replica in replicas:
        flow.start_worker("notes", kind, replica=replica, **options)
    await flow.ready_with({"notes": replicas.stop})


def graph(flow_name: str, **options: Any) -> Graph:
    return Graph(flow_name, (Node("notes", stateful=True, replicas=3, **options),))


async def test_every_replica_applies_every_write_once_and_in_one_order(settings: BrokerSettings, flow_name: str) -> None:
    Notes.living.clear()
    async with running(settings, graph(flow_name), {"notes": Notes}) as flow:
        await grow(flow, Notes, range(1, 3))
        answers = await asyncio.gather(*(post(flow, "/add", f"t{number}") for number in range(300)))
        one, two, three = (Notes.living[replica] for replica in range(3))
        await eventually(lambda: one.texts == two.texts == three.texts and len(one.texts) == 300, what="equal replicas")
        assert one.tokens == two.tokens == three.tokens == sorted(set(one.tokens))
        assert sorted(int(answer[0].partition(":")[2]) for answer in answers) == list(range(1, 301))
        assert [answer[0] for answer in sorted(answers, key=lambda answer: int(answer[0].partition(":")[2]))] == [
            f"{text}:{number}" for number, text in enumerate(one.texts, 1)
        ]


async def test_a_write_that_raises_is_answered_and_raises_everywhere(settings: BrokerSettings, flow_name: str) -> None:
    Notes.living.clear()
    async with running(settings, graph(flow_name, retry_on=("ValueError",)), {"notes": Notes}) as flow:
        await grow(flow, Notes, range(1, 2))
        answer = await flow.dispatcher.send(call("/add", "bad"))
        assert answer.status.code is Code.EXECUTOR_ERROR and "no bad ones" in answer.status.description
        await post(flow, "/add", "good")
        await eventually(lambda: all(each.texts == ["good"] for each in Notes.living.values()), what="equal replicas")


async def test_a_redelivered_write_finds_its_answer(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    """The same request twice in the queue, as after the death of its first worker: applied once, answered twice alike."""
    Notes.living.clear()
    async with running(settings, graph(flow_name), {"notes": Notes}) as flow:
        body = json.dumps({"data": [{"text": "once"}]}).encode()
        replies: list[bytes] = []
        inbox = bus.new_inbox()
        await bus.listen(inbox, lambda _s, _r, _h, payload: replies.append(payload))
        envelope = Envelope(
            "write1", flow_name, flow.graph.version, "/add", hop="notes", content_type=JSON, accept=JSON, reply=inbox, body=body
        )
        for run in ("", "again"):
            await bus.store_wait(subjects.work(flow_name, "notes", "now", "write1"), encode(envelope._replace(run=run)), f"m{run}")
        await eventually(lambda: len(replies) == 2, what="both answers")
        first, second = (json.loads(bytes(decode(reply).body)) for reply in replies)
        assert first[0]["text"] == second[0]["text"] == "once:1"
        assert Notes.living[0].texts == ["once"]


async def test_a_new_replica_starts_from_the_newest_snapshot_and_the_tail(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    Notes.living.clear()
    async with running(settings, graph(flow_name), {"notes": Notes}, snapshot_every=20) as flow:
        log_stream = subjects.write_log_stream(flow_name, "notes")

        async def first_left() -> int:
            return int((await bus.api(f"STREAM.INFO.{log_stream}"))["state"]["first_seq"])

        number = 0
        while await first_left() == 1:  # until two snapshots are there, and the log is cut behind the older one
            number += 1
            await post(flow, "/add", f"t{number}")
        await grow(flow, Notes, range(1, 2), snapshot_every=20)
        assert Notes.living[1].texts == Notes.living[0].texts == [f"t{each}" for each in range(1, number + 1)]
        assert Notes.living[1].tokens == Notes.living[0].tokens
        await post(flow, "/add", "last")
        await eventually(lambda: Notes.living[1].texts[-1] == Notes.living[0].texts[-1] == "last", what="the tail")


class Folders(Notes):
    def snapshot(self, snapshot_dir: str) -> None:
        (Path(snapshot_dir) / "texts").write_text(json.dumps([self.texts, self.tokens]))

    def restore(self, snapshot_dir: str) -> None:
        self.texts, self.tokens = json.loads((Path(snapshot_dir) / "texts").read_text())


class Async(Notes):
    async def snapshot(self, snapshot_dir: str) -> None:  # type: ignore[override]
        await asyncio.to_thread(Notes.snapshot, self, snapshot_dir)

    async def restore(self, snapshot_dir: str) -> None:  # type: ignore[override]
        await asyncio.to_thread(Notes.restore, self, snapshot_dir)

    @write
    @requests(on="/add")
    async def add(self, docs: DocList[Item], **_: Any) -> None:  # type: ignore[override]
        self.texts += [doc.text for doc in docs]


@pytest.mark.parametrize("kind", [Folders, Async])
async def test_snapshots_may_be_folders_and_come_from_coroutines(
    settings: BrokerSettings, flow_name: str, bus: Bus, kind: type[Notes]
) -> None:
    Notes.living.clear()
    async with running(settings, graph(flow_name), {"notes": kind}, snapshot_every=1) as flow:
        await post(flow, "/add", "a")
        manifests = subjects.snapshot(flow_name, "notes", 0, "manifest", "*")

        async def stored() -> int:
            info = await bus.api(f"STREAM.INFO.{subjects.snapshot_stream(flow_name, 'notes')}", {"subjects_filter": manifests})
            return len(info["state"].get("subjects") or ())

        await eventually(stored, what="a snapshot")
        await grow(flow, kind, range(1, 2))
        assert Notes.living[1].texts == ["a"]


async def test_large_writes_and_their_catch_up(settings: BrokerSettings, flow_name: str) -> None:
    Notes.living.clear()
    async with running(settings, graph(flow_name), {"notes": Notes}) as flow:
        texts = ["x" * 1_500_000, "y", "z" * 3_000_000]
        for text in texts:
            await post(flow, "/add", text)
        await grow(flow, Notes, range(1, 2))
        assert Notes.living[1].texts == Notes.living[0].texts == texts


async def test_a_read_of_the_latest_state_is_never_stale(settings: BrokerSettings, flow_name: str) -> None:
    Notes.living.clear()
    async with running(settings, graph(flow_name), {"notes": Notes}) as flow:
        await grow(flow, Notes, range(1, 3))
        for number in range(100):
            await post(flow, "/add", f"t{number}")
            assert f"t{number}" in await post(flow, "/all", latest=True)


async def test_shards_have_logs_of_their_own(settings: BrokerSettings, flow_name: str) -> None:
    Notes.living.clear()
    sharded = Graph(flow_name, (Node("notes", stateful=True, shards=2, polling={"/add": Polling.ANY, "/all": Polling.ALL}),))
    async with running(settings, sharded, {}) as flow:
        for shard in range(2):
            flow.start_worker("notes", Notes, shard=shard, replica=shard)
        await flow.ready()
        await eventually(lambda: len(Notes.living) == 2, what="both shards")
        await flow.ready_with({"notes": 2})
        await asyncio.gather(*(post(flow, "/add", f"t{number}") for number in range(50)))
        assert sorted(Notes.living[0].texts + Notes.living[1].texts) == sorted(f"t{number}" for number in range(50))


async def test_marked_endpoints_of_an_ordinary_executor_just_run(settings: BrokerSettings, flow_name: str) -> None:
    Notes.living.clear()
    async with running(settings, Graph(flow_name, (Node("notes"),)), {"notes": Notes}) as flow:
        assert await post(flow, "/add", "a") == ["a:1"]


@pytest.mark.feature("CI-01")
async def test_a_worker_that_must_be_stateful_does_not_start_as_another(settings: BrokerSettings, flow_name: str) -> None:
    Notes.living.clear()
    two = Graph(flow_name, (Node("notes", stateful=True), Node("plain", needs=("notes",))))
    async with running(settings, two, {}) as flow:
        flow.start_worker("notes", Notes, stateful=True)
        await flow.ready_with({"notes": 1})
        worker = Worker(WorkerSettings(**settings.model_dump(), flow=flow_name, name="plain", stateful=True), Notes, None, None)
        with pytest.raises(FlowError, match=f"executor 'plain' is not stateful in flow '{flow_name}': write `stateful: true` there"):
            await worker.main(Stop())


@pytest.mark.slow
async def test_a_damaged_snapshot_is_passed_over_for_the_one_before(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    Notes.living.clear()
    async with running(settings, graph(flow_name), {"notes": Notes}, snapshot_every=10) as flow:
        snapshots = Snapshots(bus, flow_name, "notes", 0)
        number = 0
        while len(found := await snapshots.manifests()) < 2:
            number += 1
            await post(flow, "/add", f"t{number}")
        piece = subjects.snapshot(flow_name, "notes", 0, "piece", f"{found[0].key}.0")
        await bus.api(f"STREAM.PURGE.{subjects.snapshot_stream(flow_name, 'notes')}", {"filter": piece})
        await bus.store_wait(piece, b"not what was stored", "damage")
        await grow(flow, Notes, range(1, 2), snapshot_every=1000)
        assert Notes.living[1].texts == [f"t{each}" for each in range(1, number + 1)]


@pytest.mark.slow
async def test_a_replica_whose_next_write_was_cut_restores_and_goes_on(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    """A replica that was away: here its log is read from a place that is gone by the time it looks."""
    Notes.living.clear()
    async with running(settings, graph(flow_name), {"notes": Notes}, snapshot_every=10) as flow:
        snapshots, log = Snapshots(bus, flow_name, "notes", 0), WriteLog(bus, flow_name, "notes", 0)
        number = 0
        while len(found := await snapshots.manifests()) < 2:
            number += 1
            await post(flow, "/add", f"t{number}")
        await log.trim(found[0].sequence)
        with pytest.raises(Trimmed):
            async with aclosing(log.entries(1)) as entries:
                await anext(entries)
        await grow(flow, Notes, range(1, 2))
        await post(flow, "/add", "last")
        await eventually(lambda: Notes.living[1].texts == Notes.living[0].texts, what="the same state")


async def test_a_write_removed_by_hand_is_passed_over(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    """The way out when a write kills every replica that applies it."""
    Notes.living.clear()
    async with running(settings, graph(flow_name), {"notes": Notes}) as flow:
        for text in ("a", "b", "x" * 2_000_000, "d"):
            await post(flow, "/add", text)
        for sequence in (2, 6):  # "b", and the last piece of the large one
            await bus.api(f"STREAM.MSG.DELETE.{subjects.write_log_stream(flow_name, 'notes')}", {"seq": sequence})
        await grow(flow, Notes, range(1, 2))
        assert Notes.living[1].texts == ["a", "d"]


async def test_a_full_log_refuses_writes_and_still_answers_reads(settings: BrokerSettings, flow_name: str) -> None:
    Notes.living.clear()
    small = settings.model_copy(update={"max_log_bytes": 100_000})
    async with running(small, graph(flow_name), {"notes": Notes}, snapshot_every=100_000) as flow:
        for number in range(3):
            await post(flow, "/add", f"{number}" * 30_000)
        answer = await flow.dispatcher.send(call("/add", "x" * 30_000))
        assert answer.status.code is Overloaded.code, answer.status
        assert len(await post(flow, "/all", latest=True)) == 3


@pytest.mark.slow
async def test_a_write_of_a_dead_worker_is_answered_by_the_shard_that_has_it(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    """It lies in the log of shard 0 and in the queue of both: shard 1 must not apply it as well."""
    Notes.living.clear()
    sharded = Graph(flow_name, (Node("notes", stateful=True, shards=2, polling={"/add": Polling.ANY}, ack_wait_s=1.0),))
    async with running(settings, sharded, {}) as flow:
        envelope = Envelope("w1", flow_name, flow.graph.version, "/add", hop="notes", content_type=JSON, accept=JSON)
        envelope = envelope._replace(body=json.dumps({"data": [{"text": "once"}]}).encode(), reply=(inbox := bus.new_inbox()))
        replies: list[bytes] = []
        await bus.listen(inbox, lambda _s, _r, _h, payload: replies.append(payload))
        await WriteLog(bus, flow_name, "notes", 0).append("w1", encode(envelope))
        await bus.store_wait(subjects.work(flow_name, "notes", "now", "w1"), encode(envelope), "m")
        taken: list[Delivery] = []
        dead = Pull(bus, subjects.work_stream(flow_name, "notes"), subjects.work_durable("now"), taken.append)
        await dead.start()
        await eventually(lambda: taken, what="the first delivery")
        await dead.stop()
        flow.start_worker("notes", Notes, shard=1, replica=1)
        await eventually(lambda: len(Notes.living) == 1, what="shard 1")
        consumer = f"CONSUMER.INFO.{subjects.work_stream(flow_name, 'notes')}.{subjects.work_durable('now')}"

        async def is_passed_on() -> bool:  # more often than deaths are forgiven
            return bool((await bus.api(consumer))["delivered"]["consumer_seq"] >= 8)

        await eventually(is_passed_on, what="deliveries to the wrong shard")
        assert not replies and Notes.living[1].texts == []
        flow.start_worker("notes", Notes, shard=0, replica=0)
        await eventually(lambda: replies, what="the answer")
        assert Notes.living[0].texts == ["once"] and Notes.living[1].texts == []


async def test_a_worker_with_no_more_rights_than_its_role_has_does_all_of_it(tmp_path: Path, flow_name: str) -> None:
    """On a broker that gives each role a key of its own: writes, large ones too, snapshots, a cut log, a new replica, back to one."""
    Notes.living.clear()
    accounts.write(tmp_path / "keys", "default", [graph(flow_name)])
    broker = EmbeddedBroker(tmp_path / "broker", auth=tmp_path / "keys" / accounts.AUTH_FILE)
    broker.start()
    settings = BrokerSettings(broker_url=broker.url, broker_credentials=str(tmp_path / "keys" / "default"), connect_wait_s=5)
    provisioner, front = [
        await Bus.connect(accounts.settings_for(settings, role, flow_name), role) for role in (Role.PROVISIONER, Role.GATEWAY)
    ]
    await provision(provisioner, graph(flow_name), settings)
    dispatcher = Dispatcher(front, graph(flow_name))
    await dispatcher.start()
    flow = Running(provisioner, graph(flow_name), dispatcher, settings)
    log_info = f"STREAM.INFO.{subjects.write_log_stream(flow_name, 'notes')}"
    try:
        await grow(flow, Notes, range(1), snapshot_every=5)
        number = 0
        while (await provisioner.api(log_info))["state"]["first_seq"] == 1:
            number += 1
            await post(flow, "/add", f"{number}" * (1 if number > 1 else 600_000))
        await grow(flow, Notes, range(1, 2))
        assert len(await post(flow, "/all", latest=True)) == number
        assert Notes.living[1].texts == Notes.living[0].texts
        states = StateDesk(front, lambda: graph(flow_name))
        await done(states, Kind.SNAPSHOT, snapshot := await states.snapshot(""))
        await post(flow, "/add", "undone")
        await done(states, Kind.RESTORE, await states.restore(snapshot))
        assert len(await post(flow, "/all", latest=True)) == number
    finally:
        for stop, _ in flow.workers:
            stop.set("test over")
        await asyncio.gather(*(task for _, task in flow.workers))
        await dispatcher.close()
        await asyncio.gather(provisioner.close(), front.close())
        broker.stop()
