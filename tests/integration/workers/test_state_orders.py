"""Snapshots that clients ask for by Jina's gRPC services, and going back to them: real broker, replicas and gRPC server of a gateway."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from streamflow.broker import bucket, subjects
from streamflow.broker.bus import Bus
from streamflow.broker.flow import Graph, Node, Polling
from streamflow.broker.settings import BrokerSettings, GatewaySettings
from streamflow.gateway.grpc_server import GrpcServer
from streamflow.gateway.proto.registry import message
from streamflow.gateway.state_desk import StateDesk
from streamflow.workers.snapshots import Snapshots
from tests.running import Running, running
from tests.waiting import eventually

from .test_stateful import Notes, graph, grow, post

pytestmark = pytest.mark.feature("PR-06", "ST-05")

SnapshotId, SnapshotStatus = message("jina.SnapshotId"), message("jina.SnapshotStatusProto")
RestoreId, RestoreStatus = message("jina.RestoreId"), message("jina.RestoreSnapshotStatusProto")
RestoreCommand = message("jina.RestoreSnapshotCommand")


@dataclass
class Client:
    channel: grpc.aio.Channel

    def _call(self, method: str, answer: Any, request: Any, **metadata: str) -> Any:
        call = self.channel.unary_unary(
            f"/jina.{method}", request_serializer=lambda sent: sent.SerializeToString(), response_deserializer=answer.FromString
        )
        return call(request, timeout=10, metadata=tuple((name.replace("_", "-"), value) for name, value in metadata.items()))

    def snapshot(self, **metadata: str) -> Any:
        return self._call("JinaExecutorSnapshot/snapshot", SnapshotStatus, Empty(), **metadata)

    def snapshot_status(self, name: str) -> Any:
        return self._call("JinaExecutorSnapshotProgress/snapshot_status", SnapshotStatus, SnapshotId(value=name))

    def restore(self, file: str) -> Any:
        return self._call("JinaExecutorRestore/restore", RestoreStatus, RestoreCommand(snapshot_file=file))

    def restore_status(self, name: str) -> Any:
        return self._call("JinaExecutorRestoreProgress/restore_status", RestoreStatus, RestoreId(value=name))

    async def taken(self) -> Any:
        """A snapshot, once it is over."""
        made = await self.snapshot()
        assert made.status == SnapshotStatus.RUNNING and made.snapshot_file
        return await over(self.snapshot_status, made.id.value)

    async def restored(self, file: str) -> Any:
        made = await self.restore(file)
        assert made.status == RestoreStatus.RUNNING
        return await over(self.restore_status, made.id.value)


async def over(status: Callable[[str], Awaitable[Any]], name: str) -> Any:
    """What `status` says of the order `name` once it runs no more."""
    said: Any = None

    async def has_ended() -> bool:
        nonlocal said
        said = await status(name)
        return bool(said.status != type(said).RUNNING)

    await eventually(has_ended, what=f"the end of {name}")
    return said


@asynccontextmanager
async def served(flow: Running, **options: Any) -> AsyncIterator[Client]:
    settings = GatewaySettings(flow=flow.graph.flow, **options)
    server = GrpcServer(flow.dispatcher, settings, states=StateDesk(flow.bus, lambda: flow.dispatcher.graph))
    (port,) = await server.start([("127.0.0.1", 0)])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            yield Client(channel)
        finally:
            await server.stop(0.5)


async def test_a_snapshot_on_demand_and_back_to_it(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    """All replicas go back, one that starts later too, and what is written afterwards counts from there."""
    Notes.living.clear()
    async with running(settings, graph(flow_name), {"notes": Notes}) as flow, served(flow) as client:
        await grow(flow, Notes, range(1, 2))
        await post(flow, "/add", "a")
        await post(flow, "/add", "b")
        seen = await client.taken()
        assert seen.status == SnapshotStatus.SUCCEEDED and seen.snapshot_file == seen.id.value
        (manifest,) = await Snapshots(bus, flow_name, "notes", 0).manifests()
        assert seen.id.value == f"notes/{manifest.name}" and manifest.sequence == 2
        await post(flow, "/add", "undone")
        assert (await client.restored(seen.snapshot_file)).status == RestoreStatus.SUCCEEDED
        assert await post(flow, "/all", latest=True) == ["a", "b"]
        assert await post(flow, "/add", "c") == ["c:3"]
        await grow(flow, Notes, range(2, 3))
        await eventually(lambda: all(each.texts == ["a", "b", "c"] for each in Notes.living.values()), what="three equal replicas")


async def test_a_new_replica_that_must_read_the_whole_log_goes_back_at_the_same_place(
    settings: BrokerSettings, flow_name: str, bus: Bus
) -> None:
    """The snapshot at the place of the restore is lost here, so the replica starts from an older one and comes upon the entry."""
    Notes.living.clear()
    async with running(settings, graph(flow_name), {"notes": Notes}) as flow, served(flow) as client:
        await post(flow, "/add", "a")
        file = (await client.taken()).snapshot_file
        await post(flow, "/add", "undone")
        await client.restored(file)
        await post(flow, "/add", "b")
        newest = (await Snapshots(bus, flow_name, "notes", 0).manifests())[0]
        listed = subjects.snapshot(flow_name, "notes", 0, "manifest", newest.place)
        await bus.api(f"STREAM.PURGE.{subjects.snapshot_stream(flow_name, 'notes')}", {"filter": listed})
        await grow(flow, Notes, range(1, 2))
        assert Notes.living[1].texts == Notes.living[0].texts == ["a", "b"]


async def test_snapshots_that_were_asked_for_outlive_others(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    Notes.living.clear()
    async with running(settings, graph(flow_name), {"notes": Notes}, snapshot_every=3) as flow, served(flow) as client:
        await post(flow, "/add", "first")
        file = (await client.taken()).snapshot_file
        snapshots, number = Snapshots(bus, flow_name, "notes", 0), 0
        while len([each for each in await snapshots.manifests() if not each.name]) < 2:
            number += 1
            await post(flow, "/add", f"t{number}")
        assert (await client.restored(file)).status == RestoreStatus.SUCCEEDED
        assert await post(flow, "/all", latest=True) == ["first"]


async def test_every_shard_has_its_part_of_one_snapshot(settings: BrokerSettings, flow_name: str) -> None:
    Notes.living.clear()
    sharded = Graph(flow_name, (Node("notes", stateful=True, shards=2, polling={"/add": Polling.ANY, "/all": Polling.ALL}),))
    async with running(settings, sharded, {}) as flow, served(flow) as client:
        flow.start_worker("notes", Notes, shard=0, replica=0)
        await flow.ready_with({"notes": 1})
        with pytest.raises(grpc.aio.AioRpcError, match="shard 1") as raised:
            await client.snapshot()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        flow.start_worker("notes", Notes, shard=1, replica=1)
        await flow.ready_with({"notes": 2})
        await asyncio.gather(*(post(flow, "/add", f"t{number}") for number in range(20)))
        before = {shard: list(notes.texts) for shard, notes in Notes.living.items()}
        seen = await client.taken()
        assert seen.status == SnapshotStatus.SUCCEEDED
        await asyncio.gather(*(post(flow, "/add", f"u{number}") for number in range(20)))
        assert (await client.restored(seen.snapshot_file)).status == RestoreStatus.SUCCEEDED
        assert {shard: notes.texts for shard, notes in Notes.living.items()} == before


async def test_an_order_outlives_who_heard_it(settings: BrokerSettings, flow_name: str, bus: Bus) -> None:
    """Nobody has its turn until all replicas that heard of it are gone."""
    Notes.living.clear()
    async with running(settings, graph(flow_name), {"notes": Notes}) as flow, served(flow) as client:
        await post(flow, "/add", "a")
        assert await bucket.create(bus, flow_name, "snapshot.notes.0", "somebody", keep_s=30)
        made = await client.snapshot()
        stop, task = flow.workers.pop()
        stop.set("dies")
        await task
        assert (await client.snapshot_status(made.id.value)).status == SnapshotStatus.RUNNING
        await bucket.delete(bus, flow_name, "snapshot.notes.0")
        flow.start_worker("notes", Notes)
        seen = await over(client.snapshot_status, made.id.value)
        assert seen.status == SnapshotStatus.SUCCEEDED


class Forgetful(Notes):
    may_fail: threading.Event

    def snapshot(self, snapshot_dir: str) -> None:
        Forgetful.may_fail.wait(10)
        raise OSError("the disk is gone\n")


async def test_what_fails_says_why_and_unknown_names_are_not_found(settings: BrokerSettings, flow_name: str) -> None:
    Notes.living.clear()
    Forgetful.may_fail = threading.Event()
    async with running(settings, graph(flow_name), {"notes": Forgetful}) as flow, served(flow) as client:
        made = await client.snapshot()
        with pytest.raises(grpc.aio.AioRpcError, match="in progress") as raised:
            await client.snapshot()
        assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
        Forgetful.may_fail.set()
        await over(client.snapshot_status, made.id.value)
        call = client.snapshot_status(made.id.value)
        assert (await call).status == SnapshotStatus.FAILED
        assert "the disk is gone" in dict(await call.trailing_metadata())["x-streamflow-detail"]
        for name in ("", "notes/abc", "nobody/abc", "notes/a.b*c>", made.id.value.upper()):
            assert (await client.snapshot_status(name)).status == SnapshotStatus.NOT_FOUND
            assert (await client.restore_status(name)).status == RestoreStatus.NOT_FOUND
        assert (await client.restore_status(made.id.value)).status == RestoreStatus.NOT_FOUND  # of a snapshot
        assert (await client.restored("notes/abc")).status == RestoreStatus.FAILED
        for wrong in ("nobody/abc", "/tmp/state.bin", "notes/../x"):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await client.restore(wrong)
            assert raised.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
        assert await post(flow, "/add", "still served") == ["still served:1"]


async def test_which_executor_is_meant(settings: BrokerSettings, flow_name: str) -> None:
    Notes.living.clear()
    two = Graph(
        flow_name, (Node("notes", stateful=True), Node("others", needs=("notes",), stateful=True), Node("plain", needs=("others",)))
    )
    async with running(settings, two, {"notes": Notes, "others": Notes, "plain": Notes}) as flow:
        async with served(flow) as client:
            with pytest.raises(grpc.aio.AioRpcError, match="x-streamflow-executor.*notes, others"):
                await client.snapshot()
            with pytest.raises(grpc.aio.AioRpcError, match="no stateful executor 'plain'"):
                await client.snapshot(x_streamflow_executor="plain")
            assert (await client.snapshot(x_streamflow_executor="others")).id.value.startswith("others/")
        async with served(flow, no_debug_endpoints=True) as client:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await client.snapshot(x_streamflow_executor="others")
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
