"""Claim check: a body above the inline limit lies in a stream of its own, in pieces; the envelope carries its key, size and SHA-256.

A message above `max_payload` never reaches the socket (the broker would close the connection for good). A claim is deleted by the last
hop that read it; what a crash leaves behind ends with the stream's `max_age`.
"""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256

from . import subjects
from .bus import Bus
from .envelope import Claim, Envelope
from .errors import InvalidInput, NotFound, TooLarge, Unavailable

PIECE_BYTES = 512 * 1024


async def check_in(bus: Bus, envelope: Envelope) -> Envelope:
    """`envelope` with its body stored and replaced by a claim. Raises `TooLarge`, `Overloaded`, `Unavailable`."""
    body = bytes(envelope.body)
    if len(body) > bus.settings.max_request_bytes:
        raise TooLarge(f"body of {len(body)} bytes, at most {bus.settings.max_request_bytes} are accepted")
    digest = sha256(body).hexdigest()
    key = os.urandom(16).hex()
    pieces = [body[start : start + PIECE_BYTES] for start in range(0, len(body), PIECE_BYTES)]
    await asyncio.gather(*(bus.store_wait(subjects.blob(envelope.flow, key, n), piece, f"{key}/{n}") for n, piece in enumerate(pieces)))
    return envelope._replace(body=b"", claim=Claim(key, len(body), digest))


async def check_out(bus: Bus, envelope: Envelope) -> Envelope:
    """`envelope` with the claimed body back in place. Raises `NotFound` when it has expired, `InvalidInput` when it is damaged."""
    claim = envelope.claim
    assert claim is not None
    stream = subjects.blob_stream(envelope.flow)
    count = -(-claim.size // PIECE_BYTES)
    pieces = await asyncio.gather(*(bus.direct_get(stream, subjects.blob(envelope.flow, claim.key, n)) for n in range(count)))
    body = b"".join(piece for piece in pieces if piece is not None)
    if len(body) != claim.size:
        raise NotFound(
            f"the body of request {envelope.request_id} ({claim.size} bytes) is gone: it is kept for {bus.settings.blob_ttl_s:g} s"
        )
    if sha256(body).hexdigest() != claim.sha256:
        raise InvalidInput(f"the body of request {envelope.request_id} is damaged: its SHA-256 does not match")
    return envelope._replace(body=body, claim=None)


async def discard(bus: Bus, flow: str, claim: Claim) -> None:
    """Delete a claimed body that nobody will read again; failing is harmless, it expires."""
    try:
        await bus.api(f"STREAM.PURGE.{subjects.blob_stream(flow)}", {"filter": subjects.blob(flow, claim.key, "*")})
    except (Unavailable, NotFound):
        return
