"""What the broker's own monitoring proves: that it writes through to disk, and that its disk has room for what it may take."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from .deployed import FULL, Deployed
from .monitoring import Monitored
from .verdict import Verdict, fail, ok, warn

_MIB = 1 << 20


def own_servers(found: Sequence[Monitored], flows: Sequence[Deployed], server_id: str) -> list[Monitored]:
    """Those of `found` that hold the flows: in a cluster by name, else the one that we are connected to."""
    names = {name for flow in flows for name in flow.servers}
    named = [each for each in found if each.name in names] if len(names) > 1 else []
    return list({each.server_id: each for each in found if each.server_id == server_id or each in named}.values())


def durability(promise: str, flows: Sequence[Deployed], servers: Sequence[Monitored]) -> Verdict:
    """Hold `servers` to what this configuration (`promise`) and each flow promise. What cannot be proven does not hold."""
    needed = max((len(flow.servers) for flow in flows), default=1) or 1
    lazy = [each.url for each in servers if not each.is_synced]
    who = [f"flow {flow.name!r}" for flow in flows if flow.promise == "fsync"]
    who = ["this configuration", *who] if promise == "fsync" else who
    if not who:
        return ok("durability: acknowledged requests survive the end of the broker; a power cut may cost the last ones")
    if lazy:
        text = f"durability: {', '.join(who)} promises fsync, but {', '.join(lazy)} acknowledges before it writes to disk"
        return fail(text, "set `sync_interval: always` in the server's jetstream block, or promise `default`")
    if len(servers) < needed:
        text = f"durability: {', '.join(who)} promises fsync, which {len(servers)} of {needed} servers prove"
        return fail(text, "open their monitoring (`http: 127.0.0.1:8222`) and name it with --monitoring")
    return ok(f"durability: fsync, proven by {', '.join(each.url for each in servers)}")


def quota(server: Monitored) -> Iterator[Verdict]:
    """A store at its quota refuses; a full disk leaves streams that acknowledge nothing until the server is restarted."""
    if server.stored_bytes > FULL * server.max_bytes:
        yield warn(f"quota: {server.stored_bytes} of {server.max_bytes} bytes are used", "raise max_file_store, or keep less (keep_s)")
    if not (Path(server.store).is_dir() and os.access(server.store, os.R_OK)):
        yield ok(f"quota: {server.max_bytes // _MIB} MiB; the disk is not on this machine and was not looked at")
        return
    room = shutil.disk_usage(server.store).free + server.stored_bytes
    text = f"quota: streams may take {server.reserved_bytes // _MIB} MiB, the disk has room for {room // _MIB} MiB"
    if server.reserved_bytes > room:
        yield warn(text, "a full disk stops the broker: lower STREAMFLOW_MAX_QUEUE_BYTES and STREAMFLOW_MAX_JOB_BYTES")
    else:
        yield ok(text)
