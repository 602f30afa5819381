"""Jina's services for snapshots of stateful executors. At its gateways they speak for all replicas and shards of an executor.

`snapshot_file` is the name under which a snapshot is stored, not a path; the metadata `x-streamflow-executor` says of which executor it
is to be where the flow has several stateful ones; why something failed is told in the trailing metadata `x-streamflow-detail`.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from streamflow.broker.state_orders import Kind, Progress, State

from .grpc_streams import Context, metadata, telling
from .jina_wire import read
from .proto.registry import message
from .state_desk import StateDesk

EXECUTOR = "x-streamflow-executor"
DETAIL = "x-streamflow-detail"
_SnapshotId = message("jina.SnapshotId")
_SnapshotStatus = message("jina.SnapshotStatusProto")
_RestoreId = message("jina.RestoreId")
_RestoreStatus = message("jina.RestoreSnapshotStatusProto")
_RestoreCommand = message("jina.RestoreSnapshotCommand")
_LONGEST_DETAIL = 1000


class StateService:
    """The handlers; they take and give serialized messages."""

    def __init__(self, desk: StateDesk) -> None:
        self._desk = desk

    def handlers(self) -> Iterable[grpc.GenericRpcHandler]:
        services = {
            "JinaExecutorSnapshot": self.snapshot,
            "JinaExecutorSnapshotProgress": self.snapshot_status,
            "JinaExecutorRestore": self.restore,
            "JinaExecutorRestoreProgress": self.restore_status,
        }
        for service, handler in services.items():
            methods = {handler.__name__: grpc.unary_unary_rpc_method_handler(telling(handler))}
            yield grpc.method_handlers_generic_handler(f"jina.{service}", methods)

    async def snapshot(self, raw: bytes, context: Context) -> bytes:
        made = await self._desk.snapshot(metadata(context).get(EXECUTOR, ""))
        return _snapshot_status(made, Progress(State.RUNNING))

    async def snapshot_status(self, raw: bytes, context: Context) -> bytes:
        asked = read(_SnapshotId, raw).value
        return _snapshot_status(asked, _told(await self._desk.progress(Kind.SNAPSHOT, asked), context))

    async def restore(self, raw: bytes, context: Context) -> bytes:
        made = await self._desk.restore(read(_RestoreCommand, raw).snapshot_file)
        return _restore_status(made, Progress(State.RUNNING))

    async def restore_status(self, raw: bytes, context: Context) -> bytes:
        asked = read(_RestoreId, raw).value
        return _restore_status(asked, _told(await self._desk.progress(Kind.RESTORE, asked), context))


def _told(progress: Progress | None, context: Context) -> Progress | None:
    if progress is not None and progress.detail:
        text = progress.detail[:_LONGEST_DETAIL].encode("ascii", "backslashreplace").decode()
        context.set_trailing_metadata(((DETAIL, "".join(char if char.isprintable() else " " for char in text)),))
    return progress


def _snapshot_status(order_id: str, progress: Progress | None) -> bytes:
    status = _SnapshotStatus(id={"value": order_id}, status=_name(progress), snapshot_file=order_id if progress is not None else "")
    return bytes(status.SerializeToString())


def _restore_status(order_id: str, progress: Progress | None) -> bytes:
    return bytes(_RestoreStatus(id={"value": order_id}, status=_name(progress)).SerializeToString())


def _name(progress: Progress | None) -> str:
    return "NOT_FOUND" if progress is None else progress.state.name
