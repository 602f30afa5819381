"""Claim check: a body above the inline limit lies in a stream of its own, in pieces; the envelope carries its key, size and SHA-256.

A message above `max_payload` never reaches the socket (the broker would close the connection for good). A claim is deleted by the last
hop that read it; what a crash leaves behind expires, after the request does (`lifetimes.py`). What belongs to a job, a stored result, a
journal or a dead letter is kept instead, in another stream, longer than these are; its key says so. So it does where one claim has several
readers, the shards of an executor: none of them deletes it, but who puts their answers together.
"""

from __future__ import annotations

import asyncio
import logging
import os
from hashlib import sha256

from . import subjects
from .bus import Bus
from .envelope import Claim, Envelope
from .errors import InvalidInput, NotFound, Overloaded, StreamflowError, TooLarge
from .lifetimes import under_way_s

log = logging.getLogger(__name__)

PIECE_BYTES = 512 * 1024
_KEPT = "kept-"
_SHARED = "shared-"
ERASED_S = 1.5  # after which the mark of an erasure is gone
SHARED_S = 60.0  # a shared body stays so long after its last reader: one that died before it could ack reads it again


async def check_in(bus: Bus, envelope: Envelope, *, keep_s: float = 0.0, shared: bool = False) -> Envelope:
    """`envelope` with its body stored and replaced by a claim; `keep_s`: for something that is kept for so many seconds, and for whoever is
    at work on it in the end; `shared`: for several readers.

    Raises `TooLarge`, `Overloaded`, `Unavailable`.
    """
    body = bytes(envelope.body)
    if len(body) > bus.settings.max_request_bytes:
        raise TooLarge(f"body of {len(body)} bytes, at most {bus.settings.max_request_bytes} are accepted")
    digest = sha256(body).hexdigest()
    key = (_KEPT if keep_s else _SHARED if shared else "") + os.urandom(16).hex()
    age_s = keep_s + bus.settings.blob_ttl_s if keep_s else under_way_s(envelope, bus.settings)
    pieces = [body[start : start + PIECE_BYTES] for start in range(0, len(body), PIECE_BYTES)]
    stored = (bus.store_wait(_subject(envelope.flow, key, n), piece, f"{key}/{n}", keep_s=age_s) for n, piece in enumerate(pieces))
    outcomes = await asyncio.gather(*stored, return_exceptions=True)
    claim = Claim(key, len(body), digest)
    for refused in (outcome for outcome in outcomes if isinstance(outcome, BaseException)):
        if isinstance(refused, Overloaded):
            await discard(bus, envelope.flow, claim)  # what there was room for would take it from others
        raise refused
    return envelope._replace(body=b"", claim=claim)


async def check_out(bus: Bus, envelope: Envelope) -> Envelope:
    """`envelope` with the claimed body back in place. Raises `NotFound` when it has expired, `InvalidInput` when it is damaged."""
    claim = envelope.claim
    assert claim is not None
    stream = subjects.kept_stream(envelope.flow) if claim.key.startswith(_KEPT) else subjects.blob_stream(envelope.flow)
    found = (bus.direct_get(stream, _subject(envelope.flow, claim.key, n)) for n in range(_count(claim)))
    pieces = await asyncio.gather(*found)
    body = b"".join(piece for piece in pieces if piece is not None)
    if len(body) != claim.size:
        raise NotFound(f"the body of request {envelope.request_id} ({claim.size} bytes) is gone: it has expired, or was removed")
    if sha256(body).hexdigest() != claim.sha256:
        raise InvalidInput(f"the body of request {envelope.request_id} is damaged: its SHA-256 does not match")
    return envelope._replace(body=body, claim=None)


async def discard(bus: Bus, flow: str, claim: Claim) -> None:
    """Delete a claimed body that nobody will read again, unless it is kept or shared; failing is harmless, it expires.

    Not before the broker has what was sent until now: a request whose ack was lost comes again, and needs its body.
    """
    if not claim.key.startswith((_KEPT, _SHARED)):
        await _erase(bus, flow, claim)


async def discard_shared(bus: Bus, flow: str, claim: Claim) -> None:
    """`discard` for a shared one: `SHARED_S` after the last of its readers was done, or when it has none."""
    if claim.key.startswith(_SHARED):
        await _erase(bus, flow, claim)


async def _erase(bus: Bus, flow: str, claim: Claim) -> None:
    """An erasure needs a little room itself; those before it give theirs back within a second."""
    for last in (False, False, False, True):
        try:
            await bus.flush()
            await asyncio.gather(*(bus.erase(_subject(flow, claim.key, piece)) for piece in range(_count(claim))))
            return
        except StreamflowError as error:
            if last or not isinstance(error, Overloaded):
                log.debug("a large body is left to expire: %s", error)
                return
        await asyncio.sleep(ERASED_S)


def _count(claim: Claim) -> int:
    return -(-claim.size // PIECE_BYTES)


def _subject(flow: str, key: str, piece: int) -> str:
    return subjects.kept(flow, key, piece) if key.startswith(_KEPT) else subjects.blob(flow, key, piece)
