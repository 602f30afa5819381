"""The only place that builds or parses names on the wire: subjects, streams, durables, buckets, message ids (ADR-6).

Anything a user supplies becomes a token `[A-Za-z0-9_-]{1,64}` here or is refused; nothing is ever pasted into a subject.
"""

from __future__ import annotations

import re
from hashlib import sha256

from .errors import InvalidInput

PREFIX = "sf"
ANYBODY = "any"
ONLINE = "online"  # stands for the job in the stored result of a request that somebody waits, or waited, for
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def token(name: str, what: str) -> str:
    """`name` if it may stand in a subject; raises `InvalidInput` naming `what` otherwise."""
    if not isinstance(name, str) or not _TOKEN.match(name):
        shown = repr(name if isinstance(name, str) else type(name).__name__)[:80]
        raise InvalidInput(f"{what} {shown}: use 1 to 64 letters, digits, '_' or '-'")
    return name


def below(*tokens: str) -> str:
    """Everything that starts with these tokens, for a permission: `below("shop", "job")` takes all of `job("shop", ...)`."""
    return ".".join((PREFIX, *tokens, ">"))


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


def retry(flow: str, executor: str, owner: str, ticket: str) -> str:
    """Where a request waits for its next attempt. `owner`: the shard that alone may take it, or `ANYBODY`."""
    return f"{PREFIX}.{flow}.{executor}.retry.{owner}.{ticket}"


def again(flow: str, executor: str, owner: str, ticket: str) -> str:
    """Where it is delivered when the time has come; in the same stream."""
    return f"{PREFIX}.{flow}.{executor}.again.{owner}.{ticket}"


def retry_stream(flow: str, executor: str) -> str:
    return work_stream(flow, executor) + "_retry"


def retry_durable(owner: str) -> str:
    return f"again-{owner}"


def owner_of(subject: bytes, shard: int | None) -> str:
    """Who may take another attempt at what came on `subject` to a worker that holds `shard`: only it, when each shard has its own copy."""
    kind = subject.split(b".")[3:5]
    return str(shard) if shard is not None and (kind[0] == b"all" or kind == [b"again", b"%d" % shard]) else ANYBODY


def shard_of(subject: str) -> int | None:
    """The shard that alone gets another attempt that waits on `subject`; None where any may, or each has its copy."""
    kind, owner = (*subject.split(".")[3:5], "", "")[:2]
    return int(owner) if kind in ("retry", "again") and owner != ANYBODY else None


def queue_of(stream: str, subject: str) -> tuple[str, str] | None:
    """Flow and executor whose queue is on `subject` of `stream`; None when this is something else."""
    prefix, flow, executor, *_ = (*subject.split("."), "", "", "")
    mine = (work_stream(flow, executor), fan_out_stream(flow, executor), retry_stream(flow, executor))
    return (flow, executor) if prefix == PREFIX and stream in mine else None


def part(flow: str, place: str, request_id: str, kind: str, name: str) -> str:
    """Where one part waits for the others; `place` is the executor that they meet before (kind join) or after (kind gather)."""
    return f"{PREFIX}.{flow}.{place}.part.{request_id}.{kind}.{name}"


def gather(flow: str, executor: str, shard: str, what: str) -> str:
    """Where the workers of `shard` get the other shards' parts ("part"), when that shard is the one that puts them together, and are asked
    to give one back ("back"). Core NATS."""
    return f"{PREFIX}.{flow}.{executor}.gather.{shard}.{what}"


def gathered(flow: str, executor: str, worker: str, number: str) -> str:
    """Where `worker` hears what became of the part that it sent as its `number`. Core NATS."""
    return f"{PREFIX}.{flow}.{executor}.gathered.{worker}.{number}"


def part_stream(flow: str, place: str) -> str:
    return work_stream(flow, place) + "_part"


def dead(flow: str, executor: str, request_id: str) -> str:
    """Where a request that `executor` gave up on is kept."""
    return f"{PREFIX}.{flow}.dead.{executor}.{request_id}"


def dead_stream(flow: str) -> str:
    return f"{PREFIX}_{flow}_dead"


def job(flow: str, run: str, request_id: str) -> str:
    """Where one stored input of job `run` lies, before and after it is worked on."""
    return f"{PREFIX}.{flow}.job.{run}.{request_id}"


def jobs_stream(flow: str) -> str:
    return f"{PREFIX}_{flow}_jobs"


def job_durable(run: str) -> str:
    """The consumer that feeds job `run` into the bulk lane; it exists while the job is unfinished and is paused with it."""
    return f"job-{run}"


def result(flow: str, record: str) -> str:
    """Where an outcome is stored. `record` is "<run>.<name>": of a job its id and the input's number, of an online request `ONLINE` and
    the request's name. The first writer wins (expected last sequence 0 on this subject, ADR-19)."""
    return f"{PREFIX}.{flow}.result.{record}"


def failed(flow: str, record: str) -> str:
    """A mark beside a stored result that is an error, so that failures are counted and found without reading the rest."""
    return f"{PREFIX}.{flow}.failed.{record}"


def results_stream(flow: str) -> str:
    return f"{PREFIX}_{flow}_results"


def journal(flow: str, request_id: str) -> str:
    """Where a copy of an online request is kept by a flow with a journal."""
    return f"{PREFIX}.{flow}.in.{request_id}"


def journal_stream(flow: str) -> str:
    return f"{PREFIX}_{flow}_journal"


def write_log(flow: str, executor: str, shard: int, kind: str, name: str) -> str:
    """Where a write of a stateful executor is appended; `kind` is "write", "piece" for what a large one begins with, or "restore"."""
    return f"{PREFIX}.{flow}.{executor}.log.{shard}.{kind}.{name}"


def write_log_stream(flow: str, executor: str, shard: int = 0) -> str:
    """A stream per shard, so that its sequence numbers have no gaps but those of a trimmed start."""
    return f"{work_stream(flow, executor)}_log_{shard}"


def snapshot(flow: str, executor: str, shard: int, kind: str, name: str) -> str:
    """Where a snapshot of a stateful executor lies; `kind` is "piece" (name "<key>.<number>") or "manifest" (name "<key>-<sequence>")."""
    return f"{PREFIX}.{flow}.{executor}.snap.{shard}.{kind}.{name}"


def snapshot_stream(flow: str, executor: str, shard: int = 0) -> str:
    return f"{work_stream(flow, executor)}_snap_{shard}"


def reply(flow: str, owner: str, ticket: str) -> str:
    return f"{PREFIX}.reply.{flow}.{owner}.{ticket}"


def replies(flow: str, owner: str) -> str:
    return f"{PREFIX}.reply.{flow}.{owner}.*"


def credit(source: str) -> str:
    """Where the worker behind `source` ("<place>.<worker>.<number>") hears how far a stream's reader has come. Core NATS."""
    return f"{PREFIX}.credit.{source}"


def credit_place(flow: str, executor: str) -> str:
    """First token of the sources of an executor's workers, by which a broker permission tells them from others."""
    return digest(f"{flow}.{executor}")[:8]


def control(flow: str, verb: str) -> str:
    """Core NATS subject for `verb` in announce | hello | cancel | drain | reload | graph | job | state."""
    return f"{PREFIX}.{flow}.ctl.{verb}"


def bucket(flow: str) -> str:
    """Key-value bucket with the flow's definitions and the executors' schemas."""
    return f"{PREFIX}_{flow}"


def bucket_stream(flow: str) -> str:
    """The stream behind the bucket (ADR-8)."""
    return f"KV_{bucket(flow)}"


def bucket_key(flow: str, key: str) -> str:
    return f"$KV.{bucket(flow)}.{key}"


def all_buckets() -> str:
    """What is stored in any bucket, for finding those that there are."""
    return "$KV.*.>"


def blob_stream(flow: str) -> str:
    """Stream with the pieces of bodies above the inline limit."""
    return f"{PREFIX}_{flow}_blobs"


def blob(flow: str, key: str, piece: int | str) -> str:
    return f"{PREFIX}.{flow}.blob.{key}.{piece}"


def kept(flow: str, key: str, piece: int | str) -> str:
    """A piece of a large body that lives as long as jobs and results do."""
    return f"{PREFIX}.{flow}.kept.{key}.{piece}"


def kept_stream(flow: str) -> str:
    return f"{PREFIX}_{flow}_kept"


def message_id(request_id: str, hop: str, part: str = "", run: str = "") -> str:
    """Key by which a stream drops a second publish of the same step."""
    return f"{request_id}/{hop}/{part}/{run}"
