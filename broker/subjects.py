"""The only place that builds or parses names on the wire: subjects, streams, durables, buckets, message ids (ADR-6).

Anything a user supplies becomes a token `[A-Za-z0-9_-]{1,64}` here or is refused; nothing is ever pasted into a subject.
"""

from __future__ import annotations

import re
from hashlib import sha256

from .errors import InvalidInput

PREFIX = "sf"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def token(name: str, what: str) -> str:
    """`name` if it may stand in a subject; raises `InvalidInput` naming `what` otherwise."""
    if not isinstance(name, str) or not _TOKEN.match(name):
        shown = repr(name if isinstance(name, str) else type(name).__name__)[:80]
        raise InvalidInput(f"{what} {shown}: use 1 to 64 letters, digits, '_' or '-'")
    return name


def digest(text: str) -> str:
    """A token that stands for any text (client ids, job keys): 32 hex digits of its SHA-256."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def work(flow: str, executor: str, lane: str, request_id: str) -> str:
    """Where a request waits for `executor`. The request id makes it findable (a direct get) and removable (a purge) while it waits."""
    return f"{PREFIX}.{flow}.{executor}.{lane}.{request_id}"


def work_filter(flow: str, executor: str, lane: str) -> str:
    return f"{PREFIX}.{flow}.{executor}.{lane}.*"


def work_stream(flow: str, executor: str) -> str:
    """Unlike subjects, stream names have no separator that a name cannot hold: an underscore in one is told apart by a digest."""
    name = f"{PREFIX}_{flow}_{executor}"
    return f"{name}_{digest(f'{flow}.{executor}')[:8]}" if "_" in flow + executor else name


def work_durable(lane: str) -> str:
    return lane


def fan_out(flow: str, executor: str, request_id: str) -> str:
    """Where a request for an ALL-polled executor is published once; every shard has a durable consumer of its own on it."""
    return f"{PREFIX}.{flow}.{executor}.all.{request_id}"


def fan_out_stream(flow: str, executor: str) -> str:
    return work_stream(flow, executor) + "_all"


def shard_durable(shard: int) -> str:
    return f"shard-{shard}"


def part(flow: str, place: str, request_id: str, kind: str, name: str) -> str:
    """Where one part waits for the others; `place` is the executor that they meet before (kind join) or after (kind gather)."""
    return f"{PREFIX}.{flow}.{place}.part.{request_id}.{kind}.{name}"


def part_stream(flow: str, place: str) -> str:
    return work_stream(flow, place) + "_part"


def dead(flow: str, executor: str) -> str:
    return f"{PREFIX}.{flow}.dead.{executor}"


def dead_stream(flow: str) -> str:
    return f"{PREFIX}_{flow}_dead"


def reply(owner: str, ticket: str) -> str:
    return f"{PREFIX}.reply.{owner}.{ticket}"


def replies(owner: str) -> str:
    return f"{PREFIX}.reply.{owner}.*"


def credit(source: str) -> str:
    """Where the worker behind `source` ("<worker>.<number>") hears how far a stream's reader has come. Core NATS."""
    return f"{PREFIX}.credit.{source}"


def control(flow: str, verb: str) -> str:
    """Core NATS subject for `verb` in announce | hello | cancel | drain | reload."""
    return f"{PREFIX}.{flow}.ctl.{verb}"


def bucket(flow: str) -> str:
    """Key-value bucket with the flow's definitions and the executors' schemas."""
    return f"{PREFIX}_{flow}"


def bucket_stream(flow: str) -> str:
    """The stream behind the bucket (ADR-8)."""
    return f"KV_{bucket(flow)}"


def bucket_key(flow: str, key: str) -> str:
    return f"$KV.{bucket(flow)}.{key}"


def blob_stream(flow: str) -> str:
    """Stream with the pieces of bodies above the inline limit."""
    return f"{PREFIX}_{flow}_blobs"


def blob(flow: str, key: str, piece: int | str) -> str:
    return f"{PREFIX}.{flow}.blob.{key}.{piece}"


def message_id(request_id: str, hop: str, part: str = "", run: str = "") -> str:
    """Key by which a stream drops a second publish of the same step."""
    return f"{request_id}/{hop}/{part}/{run}"
