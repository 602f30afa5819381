"""Claim check: a body above the inline limit lies in a stream of its own, in pieces; the envelope carries its key, size and SHA-256.

A message above `max_payload` never reaches the socket (the broker would close the connection for good). A claim is deleted by the last
hop that read it; what a crash leaves behind ends with the stream's `max_age`. What belongs to a job or to a stored result is kept instead,
in another stream, as long as these are; its key says so. So it does where one claim has several readers, the shards of an executor: none of
them deletes it, but who puts their answers together.
"""

from __future__ import annotations

import asyncio
import logging
import os
from hashlib import sha256

from . import subjects
from .bus import Bus
from .envelope import Claim, Envelope
from .errors import InvalidInput, NotFound, StreamflowError, TooLarge

log = logging.getLogger(__name__)

PIECE_BYTES = 512 * 1024
_KEPT = "kept-"
_SHARED = "shared-"
SHARED_S = 60.0  # a shared body stays so long after its last reader: one that died before it could ack reads it again


async def check_in(bus: Bus, envelope: Envelope, *, keep: bool = False, shared: bool = False) -> Envelope:
    """`envelope` with its body stored and replaced by a claim; `keep`: for as long as jobs and results are kept; `shared`: for several
    readers.

    Raises `TooLarge`, `Overloaded`, `Unavailable`.
    """
    body = bytes(envelope.body)
    if len(body) > bus.settings.max_request_bytes:
        raise TooLarge(f"body of {len(body)} bytes, at most {bus.settings.max_request_bytes} are accepted")
    digest = sha256(body).hexdigest()
    key = (_KEPT if keep else _SHARED if shared else "") + os.urandom(16).hex()
    pieces = [body[start : start + PIECE_BYTES] for start in range(0, len(body), PIECE_BYTES)]
    await asyncio.gather(*(bus.store_wait(_subject(envelope.flow, key, n), piece, f"{key}/{n}") for n, piece in enumerate(pieces)))
    return envelope._replace(body=b"", claim=Claim(key, len(body), digest))


async def check_out(bus: Bus, envelope: Envelope) -> Envelope:
    """`envelope` with the claimed body back in place. Raises `NotFound` when it has expired, `InvalidInput` when it is damaged."""
    claim = envelope.claim
    assert claim is not None
    stream = subjects.kept_stream(envelope.flow) if claim.key.startswith(_KEPT) else subjects.blob_stream(envelope.flow)
    found = (bus.direct_get(stream, _subject(envelope.flow, claim.key, n)) for n in range(_count(claim)))
    pieces = await asyncio.gather(*found)
    body = b"".join(piece for piece in pieces if piece is not None)
    if len(body) != claim.size:
        kept_s = bus.settings.keep_s if claim.key.startswith(_KEPT) else bus.settings.blob_ttl_s
        raise NotFound(f"the body of request {envelope.request_id} ({claim.size} bytes) is gone: it is kept for {kept_s:g} s")
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
    """`discard` for a shared one: `SHARED_S` after the last of its readers was done."""
    if claim.key.startswith(_SHARED):
        await _erase(bus, flow, claim)


async def _erase(bus: Bus, flow: str, claim: Claim) -> None:
    try:
        await bus.flush()
        await asyncio.gather(*(bus.erase(_subject(flow, claim.key, piece)) for piece in range(_count(claim))))
    except StreamflowError as error:
        log.debug("a large body is left to expire: %s", error)


def _count(claim: Claim) -> int:
    return -(-claim.size // PIECE_BYTES)


def _subject(flow: str, key: str, piece: int) -> str:
    return subjects.kept(flow, key, piece) if key.startswith(_KEPT) else subjects.blob(flow, key, piece)
