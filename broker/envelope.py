"""The envelope: what is published for one request or one part of it, and its form on the wire.

A message is `4 bytes header length (big endian) | msgpack map | body`. The header is small and every hop reads it; the body is opaque to
all but the executors (`content_type` says how to read it), so a gateway forwards a client's bytes as they came and nobody copies them
twice. Short keys keep the header near 200 bytes. Fields at their default are left out. Keys this version does not know are kept in
`extra` and passed on, so that an older worker in the middle of a flow does not strip what a newer one wrote.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

import msgpack

from .errors import OK, InvalidInput, Status, TooLarge
from .subjects import ONLINE

VERSION = 1
MAX_HEADER_BYTES = 256 * 1024

JSON = "application/json"
COLUMNS = "application/vnd.streamflow.columns"  # broker/codec/columns.py: msgpack, a value list per field
PROTOBUF = "application/vnd.jina.data"  # bytes of a jina DataRequestProto.DataContentProto
MATRIX = "application/vnd.streamflow.matrix"  # branches that met and were not merged: msgpack list of [branch, content type, body]
EMPTY = ""  # no documents at all: a parameters-only request


class Hop(NamedTuple):
    """One entry of the trail: what Jina calls a route. Times are Unix seconds, 0.0 = not there yet."""

    executor: str
    replica: str = ""
    enqueued: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    attempt: int = 1


class Claim(NamedTuple):
    """Where a body above the inline limit lies: object-store key, size in bytes, SHA-256 in hex."""

    key: str
    size: int
    sha256: str


class Envelope(NamedTuple):
    """One request (or part, or answer) as it travels. Immutable; `_replace` makes the next hop's."""

    request_id: str  # unique, given by whoever accepts the request; never a client's own string
    flow: str = ""
    flow_version: str = ""
    endpoint: str = "/"
    run: str = ""  # tells a second run of the same request (asked again, replayed) from the first
    hop: str = ""  # executor this message is for; "" in an answer
    client_id: str = ""  # the request id that the client sent, echoed back, never used for routing
    content_type: str = EMPTY
    accept: str = COLUMNS  # content type the answer must have
    reply: str = ""  # reply subject
    record: str = ""  # where the outcome is stored: "<job>.<number>" or "online.<name>" (`subjects.result`); "" = nowhere
    keep_s: float = 0.0  # seconds that the stored outcome lives; 0.0 = as long as the stream keeps it
    latest: bool = False  # a read of a stateful executor must see every write that was stored before it
    deadline: float = 0.0  # Unix seconds after which nobody wants the answer; 0.0 = none
    lane: str = "now"
    target_executor: str = ""  # regular expression, tried with re.match
    part: str = ""  # branch or shard this part stands for; "" = the whole request
    expected: tuple[str, ...] = ()  # all parts that will meet, in merge order
    missing: tuple[str, ...] = ()  # parts given up on: complete what waits at `hop` without them (allow_partial)
    position: int = -1  # of a stream part, from 0; -1 = not a stream
    final: bool = True  # last part of a stream
    stream: bool = False  # the client wants documents as they come (docs/decisions/0009-streaming.md)
    source: str = ""  # of a stream part: who numbers it, and where its reader's progress is heard (`subjects.credit`)
    pieces: tuple[int, ...] = ()  # of a stream part that answers: bytes of each document in the body, one encoded behind the other
    attempt: int = 1  # of the executor that produced an answer, or all parts of a stream (`Job.attempt`)
    retried: int = 0  # attempts at this hop that ended in an exception of `retry_on`
    parameters: dict[str, Any] = {}
    results: dict[str, Any] = {}
    trail: tuple[Hop, ...] = ()
    trace: dict[str, str] = {}
    status: Status = OK
    claim: Claim | None = None
    extra: dict[str, Any] = {}
    body: bytes | memoryview = b""

    def remaining_s(self) -> float | None:
        """Seconds until the deadline (negative when it has passed), None when there is none."""
        return self.deadline - time.time() if self.deadline else None

    @property
    def job(self) -> str:
        """Id of the job that this request belongs to; "" for one of a client that waits, or waited."""
        run = self.record.partition(".")[0]
        return "" if run == ONLINE else run

    @property
    def ticket(self) -> str:
        """What tells this message from all others at the same place: the request id, of a stream part also its source and position."""
        return self.request_id if self.position < 0 else f"{self.request_id}-{self.source.replace('.', '-')}-{self.position}"


# field -> key on the wire. Never re-use a key; golden files in tests/unit/broker hold every released form.
_KEYS: dict[str, str] = {
    "request_id": "id", "flow": "f", "flow_version": "fv", "endpoint": "on", "run": "rn", "hop": "h", "client_id": "ci",
    "content_type": "ct", "accept": "ac", "reply": "re",
    "record": "rc", "keep_s": "ks", "latest": "la", "deadline": "dl", "lane": "ln", "target_executor": "te",
    "part": "pt", "expected": "ex", "missing": "ms",
    "position": "ps", "final": "fi", "stream": "sm", "source": "so", "pieces": "pc", "attempt": "at", "retried": "rt",
    "parameters": "p", "results": "rs", "trail": "tr", "trace": "tc", "status": "st", "claim": "cl",
}  # fmt: skip
_PLACES = {field: index for index, field in enumerate(Envelope._fields)}
_DEFAULTS = Envelope._field_defaults
_BLANK = ["", *_DEFAULTS.values()]
_NAME = re.compile(r"[A-Za-z0-9_./-]{0,1024}\Z")
_names_of = itemgetter(
    *(_PLACES[field] for field in ("request_id", "run", "hop", "part", "lane", "source", "reply", "record", "flow", "flow_version"))
)
_LISTS = ("expected", "missing", "pieces", "trail", "status", "claim")
_TYPES: list[tuple[type, ...]] = [(list,) if field in _LISTS else (type(_DEFAULTS.get(field, "")),) for field in Envelope._fields]
_TYPES[_PLACES["deadline"]] = _TYPES[_PLACES["keep_s"]] = (float, int)
# Left out when empty, which is what most fields are by default; the others are left out when equal to their default.
_EMPTY = [field for field in _KEYS if not _DEFAULTS.get(field) and field != "status"]
_EMPTY_KEYS = tuple(_KEYS[field] for field in _EMPTY)
_empty_values = itemgetter(*(_PLACES[field] for field in _EMPTY))
_OTHER = tuple((_PLACES[field], key, _DEFAULTS[field]) for field, key in _KEYS.items() if _DEFAULTS.get(field) and field != "status")


def _replace(self: Envelope, **changes: Any) -> Envelope:
    """namedtuple's own `_replace`, three times faster; every hop of every request calls it."""
    values = list(self)
    for field, value in changes.items():
        values[_PLACES[field]] = value
    return tuple.__new__(Envelope, values)


Envelope._replace = _replace  # type: ignore[assignment]


def encode(envelope: Envelope) -> bytes:
    """The message for `envelope`: header length, header, body.

    Raises `TooLarge` for a header above `MAX_HEADER_BYTES` (parameters and results travel in it), `InvalidInput` for values it cannot hold.
    """
    header: dict[str, Any] = {"v": VERSION}
    for key, value in zip(_EMPTY_KEYS, _empty_values(envelope), strict=True):
        if value:
            header[key] = value
    for index, key, default in _OTHER:
        if (value := envelope[index]) != default:
            header[key] = value
    if envelope.status is not OK:
        header["st"] = envelope.status.to_wire()
    if envelope.extra:
        header.update(envelope.extra)
    packed = pack(header, "parameters and results")
    if len(packed) + 4 > MAX_HEADER_BYTES:
        raise TooLarge(f"parameters and results of {len(packed)} bytes: at most {MAX_HEADER_BYTES} are carried beside the documents")
    return b"".join((len(packed).to_bytes(4, "big"), packed, envelope.body))


def pack(value: Any, what: str) -> bytes:
    """msgpack of plain values; numpy and pydantic ones are sent as plain ones. Raises `InvalidInput` naming `what`."""
    try:
        return bytes(msgpack.packb(value, use_bin_type=True, default=_plain))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"{what} cannot be sent: {error}") from error


def decode(message: bytes) -> Envelope:
    """The envelope in `message`; its body is a view of the message, not a copy. Raises `InvalidInput` for anything else."""
    try:
        end = 4 + int.from_bytes(message[:4], "big")
        if not 4 < end <= len(message) or end > MAX_HEADER_BYTES:
            raise ValueError(f"header of {end - 4} bytes in a message of {len(message)}")
        header = msgpack.unpackb(message[4:end], raw=False, strict_map_key=False)
        return _from_header(header, memoryview(message)[end:])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, msgpack.UnpackException) as error:
        raise InvalidInput(f"not an envelope: {error}") from error


def _from_header(header: dict[str, Any], body: memoryview) -> Envelope:
    version = header.pop("v")
    if version > VERSION:
        raise ValueError(f"envelope version {version}, this worker reads up to {VERSION}")
    values = _BLANK.copy()
    values[_PLACES["body"]] = body
    extra = {}
    for key, value in header.items():
        field = _FIELD_OF_KEY.get(key)
        if field is None:
            extra[key] = value
            continue
        place, types, read = field
        if type(value) not in types:
            raise TypeError(f"{Envelope._fields[place]} is a {type(value).__name__}")
        values[place] = value if read is None else read(value)
    # What subjects are built of: a space in one would end the connection of whoever publishes next.
    if not values[0] or not _NAME.match("/".join(_names_of(values))):
        raise ValueError("a name that cannot stand in a subject")
    values[_PLACES["extra"]] = extra
    return tuple.__new__(Envelope, values)


def _hops(raw: Any) -> tuple[Hop, ...]:
    return tuple(map(_hop, raw))


def _hop(raw: Any) -> Hop:
    hop = Hop(*raw[:6])
    if type(hop[0]) is not str or type(hop[1]) is not str or type(hop[5]) is not int:
        raise TypeError("a hop of another form")
    return hop


def _claim(raw: Any) -> Claim:
    key, size, digest = raw[:3]
    if not (type(size) is int and type(digest) is str and _NAME.match(key)):
        raise TypeError("a claim of another form")
    return Claim(key, size, digest)


# How fields that are no plain values are read.
_READERS: dict[str, Callable[[Any], Any]] = {
    "expected": tuple,
    "missing": tuple,
    "pieces": tuple,
    "trail": _hops,
    "status": Status.from_wire,
    "claim": _claim,
}
_FIELD_OF_KEY = {key: (_PLACES[field], _TYPES[_PLACES[field]], _READERS.get(field)) for field, key in _KEYS.items()}


def _plain(value: Any) -> Any:
    """Parameters and results may hold numpy or pydantic values: send them as plain ones."""
    for method in ("tolist", "model_dump", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)
