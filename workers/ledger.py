"""What a replica of a stateful executor remembers of the writes it applied: which, up to where in the log, and what came of the newest.

It follows from the log alone, so it is the same on every replica, and it is a part of every snapshot. By it a write that lies in the log
twice is applied once, and one that comes again because its worker died finds its answer.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgpack

from streamflow.broker.envelope import Envelope, decode, encode, pack
from streamflow.broker.errors import Code, InvalidInput, Status, StreamflowError

from .executions import Failure, Outcome, Output

MAX_NAMES = 100_000
MAX_OUTCOMES = 1000
MAX_BYTES = 16 << 20
FORM = 1
FORGOTTEN = Failure(Status(Code.ALREADY_EXISTS, "this write was applied before; what came of it is not kept any more", "AlreadyExists"))


class Ledger:
    """`position`: sequence in the log up to which all writes are applied."""

    def __init__(self) -> None:
        self.position = 0
        self._names: OrderedDict[str, None] = OrderedDict()
        self._outcomes: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def outcome(self, name: str) -> Outcome | None:
        """What came of write `name`; None when it was not applied, as far as is known."""
        kept = self._outcomes.get(name)
        if kept is None:
            return FORGOTTEN if name in self._names else None
        return _unpacked(kept)

    def applied(self, name: str, outcome: Outcome, envelope: Envelope) -> None:
        """Note the outcome of a write that came as `envelope`; the oldest ones are forgotten."""
        self._names[name] = None
        if len(self._names) > MAX_NAMES:
            self._names.popitem(last=False)
        kept = _packed(outcome, envelope)
        self._outcomes[name] = kept
        self._bytes += len(kept)
        while len(self._outcomes) > MAX_OUTCOMES or self._bytes > MAX_BYTES:
            self._bytes -= len(self._outcomes.popitem(last=False)[1])

    def encode(self) -> bytes:
        return pack([FORM, self.position, list(self._names), list(self._outcomes.items())], "the ledger of writes")

    @classmethod
    def decode(cls, data: bytes) -> Ledger:
        """What `encode` gave. Raises `InvalidInput` for anything else."""
        ledger = cls()
        try:
            form, ledger.position, names, outcomes = msgpack.unpackb(data, raw=False)
            ledger._names.update(dict.fromkeys(names))
            ledger._outcomes.update((name, bytes(kept)) for name, kept in outcomes)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise InvalidInput(f"not a ledger of writes: {error}") from error
        if form != FORM:
            raise InvalidInput(f"a ledger of writes of form {form}, this release reads form {FORM}")
        ledger._bytes = sum(map(len, ledger._outcomes.values()))
        return ledger


def _packed(outcome: Outcome, envelope: Envelope) -> bytes:
    """An outcome as an envelope; parameters and results as they are afterwards, changed or not."""
    if not isinstance(outcome, Output):
        status = outcome.status if isinstance(outcome, Failure) else Status(Code.INTERNAL, f"a write ended as {outcome}", "StreamflowError")
        return encode(Envelope(envelope.request_id, status=status))
    changed: dict[str, Any] = {
        "parameters": envelope.parameters if outcome.parameters is None else outcome.parameters,
        "results": envelope.results if outcome.results is None else outcome.results,
    }
    try:
        return encode(Envelope(envelope.request_id, body=outcome.body, content_type=outcome.content_type, **changed))
    except StreamflowError as error:  # too large, or values that cannot be sent: as the client is told
        return encode(Envelope(envelope.request_id, status=Status.of(error)))


def _unpacked(kept: bytes) -> Outcome:
    envelope = decode(kept)
    if envelope.status.code is not Code.OK:
        return Failure(envelope.status)
    return Output(envelope.body, envelope.content_type, envelope.parameters, envelope.results)
