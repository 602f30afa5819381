"""The bus: a connection to NATS with what the roles need of JetStream and nothing else.

What must be stored is acknowledged through a callback, re-sent with the same message id after a reconnect, and fails with one of our own
errors. JetStream's administration is plain JSON requests (`api`).
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from .acks import Stored
from .connection import Connection
from .errors import NotFound, StreamflowError, Unavailable
from .refusals import error_of

Found = tuple[int, bytes] | None  # a message's sequence in its stream, and its payload

_SEQUENCE_HEADER = re.compile(rb"Nats-Sequence: (\d+)")


class Bus(Connection):
    """What is stored, read and administered over one connection. Not thread-safe: all calls from the loop that connected it."""

    def store(self, subject: str, payload: bytes, message_id: str, done: Stored, *, keep_s: float = 0.0) -> None:
        """Publish into the stream that takes `subject`; `done(sequence, error)` is called once, when the broker has it or never will.

        A publish without an answer is sent again, with the same message id, after a reconnect and every `RESEND_S`; the stream drops the
        second one. `keep_s`: delete it after so many seconds (ADR-43; the stream must allow it).
        Errors: `Overloaded` (stream full), `TooLarge`, `Unavailable` (no stream, or no answer for `STORE_TIMEOUT_S`).
        """
        ttl = _ttl(keep_s) if keep_s else b""
        self._acks.store(subject, payload, b"NATS/1.0\r\nNats-Msg-Id: %b\r\n%b\r\n" % (message_id.encode(), ttl), done)

    def store_first(self, subject: str, payload: bytes, done: Stored, *, keep_s: float = 0.0) -> None:
        """`store` if nothing is stored on `subject` yet (expected last sequence 0, ADR-19), else `AlreadyExists`.

        Holds for as long as the stream keeps messages, not only for its deduplication window. Sent again after a lost acknowledgement it
        meets itself: what is stored under a name is the same for every writer, or the first writer wins. `keep_s`: see `store`.
        """
        ttl = _ttl(keep_s) if keep_s else b""
        self._acks.store(subject, payload, b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n%b\r\n" % ttl, done)

    def schedule(self, subject: str, target: str, payload: bytes, message_id: str, delay_s: float, done: Stored) -> None:
        """`store` that puts the message on `target` in `delay_s` (ADR-51; seen: up to 0.25 s later). It waits on `subject`, in the same
        stream, which must allow schedules, over restarts of everybody."""
        moment = datetime.fromtimestamp(time.time() + delay_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        header = f"NATS/1.0\r\nNats-Msg-Id: {message_id}\r\nNats-Schedule: @at {moment}\r\nNats-Schedule-Target: {target}\r\n\r\n"
        self._acks.store(subject, payload, header.encode(), done)

    async def store_wait(self, subject: str, payload: bytes, message_id: str, *, keep_s: float = 0.0) -> int:
        """`store` for those who wait: the sequence, or the error raised."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.store(subject, payload, message_id, _resolve(future), keep_s=keep_s)
        return await future

    async def store_first_wait(self, subject: str, payload: bytes, *, keep_s: float = 0.0) -> int:
        """`store_first` for those who wait."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.store_first(subject, payload, _resolve(future), keep_s=keep_s)
        return await future

    async def store_together(self, messages: Sequence[tuple[str, bytes]]) -> int:
        """Store several messages (subject, payload) as one, with no others in between: the sequence of the last (ADR-50; the stream must
        allow it). Raises as `store_wait` does; then they may have been stored all the same, or not one of them."""
        batch = b"NATS/1.0\r\nNats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n%b\r\n"
        name = secrets.token_hex(8).encode()
        for number, (subject, payload) in enumerate(messages[:-1], 1):
            self._client.send(subject, payload, "", batch % (name, number, b""))
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._acks.store(*messages[-1], batch % (name, len(messages), b"Nats-Batch-Commit: 1\r\n"), _resolve(future))
        return await future

    async def erase(self, subject: str) -> None:
        """Delete what is stored on `subject`, by a mark in its place that soon goes too (rollup: ADR-9, TTL: ADR-43; the stream must allow
        both). Unlike purging it needs no right on the stream. Raises as `store` does."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._acks.store(subject, b"", b"NATS/1.0\r\nNats-Rollup: sub\r\nNats-TTL: 1s\r\n\r\n", _resolve(future))
        await future

    async def api(self, subject: str, body: dict[str, Any] | None = None, timeout_s: float = 5.0) -> dict[str, Any]:
        """One JetStream API call, e.g. `api("STREAM.INFO.sf_x")`. Raises `NotFound`, `Overloaded`, `Unavailable`, `StreamflowError`."""
        payload = json.dumps(body).encode() if body is not None else b""
        answer: dict[str, Any] = json.loads(await self.request(f"$JS.API.{subject}", payload, timeout_s))
        if "error" in answer:
            raise error_of(answer["error"], subject)
        return answer

    async def consumer(self, stream: str, durable: str) -> dict[str, Any] | None:
        """What JetStream tells of a consumer, None when there is none. Raises `Unavailable`."""
        try:
            return await self.api(f"CONSUMER.INFO.{stream}.{durable}")
        except NotFound:
            return None

    async def direct_get(self, stream: str, subject: str) -> bytes | None:
        """Payload of the last message on `subject`, None when there is none. The stream must allow direct gets (ADR-31)."""
        found = await self.last_message(stream, subject)
        return None if found is None else found[1]

    async def last_message(self, stream: str, subject: str, timeout_s: float = 5.0) -> Found:
        """Sequence and payload of the last message on `subject`, None when there is none. Raises `Unavailable`."""
        return (await self.last_messages(stream, (subject,), timeout_s))[0]

    async def last_messages(self, stream: str, subjects: Sequence[str], timeout_s: float = 5.0) -> list[Found]:
        """`last_message` of several subjects at once.

        With one replica a direct get is answered by the stream's only owner, so it sees every acknowledged publish; with more it may come
        from a follower that lags, so the leader is asked instead. How many a stream has is its deployer's setting, which others may not
        share: so in every cluster.
        """
        if self._settings.stream_replicas > 1 or self._client.is_clustered:
            return list(await asyncio.gather(*(self._leader_get(stream, subject) for subject in subjects)))
        questions = [(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"") for subject in subjects]
        try:
            return [_found(stream, *answer) for answer in await self._questions.ask(questions, timeout_s)]
        except TimeoutError as error:
            raise Unavailable(f"no answer from stream {stream}") from error

    async def message(self, stream: str, sequence: int) -> bytes:
        """Payload of the message with this sequence. Raises `NotFound`, `Unavailable`."""
        return self.payload_of(await self.api(f"STREAM.MSG.GET.{stream}", {"seq": sequence}))

    @staticmethod
    def payload_of(answer: dict[str, Any]) -> bytes:
        """What a message holds that the API gave."""
        return base64.b64decode(answer["message"].get("data", ""))

    def tell_api(self, subject: str, body: dict[str, Any]) -> None:
        """An API call whose answer nobody waits for (removing what may as well expire). Raises `Unavailable`."""
        self._client.send(f"$JS.API.{subject}", json.dumps(body).encode(), f"{self._questions.inbox}.0")

    async def _leader_get(self, stream: str, subject: str) -> Found:
        try:
            answer = await self.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except NotFound as error:
            if "no message" in str(error):
                return None
            raise Unavailable(str(error)) from error
        message = answer["message"]
        return message["seq"], base64.b64decode(message.get("data", ""))


def _ttl(seconds: float) -> bytes:
    return b"Nats-TTL: %ds\r\n" % max(1, round(seconds))


def _resolve(future: asyncio.Future[int]) -> Stored:
    def done(sequence: int, error: StreamflowError | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(sequence)
        else:
            future.set_exception(error)

    return done


def _found(stream: str, header: bytes | None, payload: bytes) -> Found:
    """A direct get's answer; a header block that starts with a status is no message."""
    status = (header or b"")[9:12]
    if status == b"404":
        return None
    if status.isdigit():
        raise Unavailable(f"stream {stream} is not there ({status.decode()})")
    return _header_sequence(header or b""), payload


def _header_sequence(header: bytes) -> int:
    found = _SEQUENCE_HEADER.search(header)
    return int(found.group(1)) if found else 0
