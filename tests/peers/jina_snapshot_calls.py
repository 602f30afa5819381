"""Snapshot and restore by the official stubs of jina: run with the Python of the environment that has it.

Arguments: port, and the id of a snapshot to go back to, or none to take one. Prints one JSON object: id, file, and the states seen.
"""

import json
import sys
import time

import grpc
from google.protobuf.empty_pb2 import Empty
from jina.proto import jina_pb2, jina_pb2_grpc

port, wanted = sys.argv[1], sys.argv[2:]
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    if wanted:
        kind = jina_pb2.RestoreSnapshotStatusProto
        made = jina_pb2_grpc.JinaExecutorRestoreStub(channel).restore(jina_pb2.RestoreSnapshotCommand(snapshot_file=wanted[0]))
        ask = jina_pb2_grpc.JinaExecutorRestoreProgressStub(channel).restore_status
    else:
        kind = jina_pb2.SnapshotStatusProto
        made = jina_pb2_grpc.JinaExecutorSnapshotStub(channel).snapshot(Empty())
        ask = jina_pb2_grpc.JinaExecutorSnapshotProgressStub(channel).snapshot_status
    seen = made
    while seen.status == kind.Status.RUNNING:
        time.sleep(0.05)
        seen = ask(made.id)
    made_id = type(made.id)(value="no-such")
    print(json.dumps({
        "id": made.id.value, "file": getattr(made, "snapshot_file", ""), "first": kind.Status.Name(made.status),
        "last": kind.Status.Name(seen.status), "unknown": kind.Status.Name(ask(made_id).status),
    }))  # fmt: skip
