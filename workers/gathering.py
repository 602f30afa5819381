"""Shards' parts from hand to hand: how the answers of an ALL-polled executor meet when every shard gives its part at about the same time.

The request's id chooses one shard, the collector. The workers of the others send it their parts by core NATS, it merges them, sends on,
and tells them so; only then does anybody ack. Whatever dies, every input is still in its queue. What does not meet within `HOLD_S`, comes
a second time, is large, or finds nobody at the collector's place is stored and meets in the stream instead (`reducer.py`), which needs
nobody to be alive at the same time. docs/decisions/0032-gathering.md has what that saves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from zlib import crc32

from streamflow.broker import subjects
from streamflow.broker.bus import Bus
from streamflow.broker.envelope import Envelope, decode, encode
from streamflow.broker.errors import InvalidInput, StreamflowError
from streamflow.broker.routing import Step

from .executions import Execution
from .outbox import Done
from .outgoing import Identity

log = logging.getLogger(__name__)

HOLD_S = 0.5  # far beyond what lies between shards that keep up with each other
FORGET_S = 1.0  # a part that was stored in vain is removed so much later: its own way there takes a moment
NEW_S = 1.0  # so long a worker that has started leaves the meeting to the stream
TELL_S = 0.005  # what nobody waits for goes together: each word alone would wake its reader
MAX_HELD_BYTES = 16 << 20  # of parts, this worker's and those that came before it had its own
REMEMBERED = 10_000
GONE_ON = b"+ACK"
STORE = b"-NAK"  # the collector's own part is in the stream already

K = TypeVar("K")
V = TypeVar("V")
Key = tuple[str, str, str, str]  # flow, executor, run, ticket: which request


@dataclass(slots=True)
class Mine:
    """The part of this worker, which waits for those of others, or for word from the collector. `store` takes it to the stream."""

    part: Envelope
    step: Step
    done: Done
    store: Callable[[], None]
    is_again: bool = False
    asked_back: bool = False
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Others:
    """Parts of one request that have come to its collector, by shard, and whom to tell."""

    since: float
    parts: dict[str, Envelope] = field(default_factory=dict)
    senders: list[bytes] = field(default_factory=list)
    size_bytes: int = 0


class Gathering:
    """Meets the parts of one worker. `go_on(parts, step, done)` is called by the collector, with the parts in merge order; `forget(part)`
    where a part was stored in vain."""

    def __init__(
        self, bus: Bus, identity: Identity, go_on: Callable[[list[Envelope], Step, Done], None], forget: Callable[[Envelope], None]
    ) -> None:
        self._bus = bus
        self._me = identity
        self._go_on = go_on
        self._forget = forget
        self._words = subjects.gathered(identity.flow, identity.executor, identity.instance, "")
        self._cut = len(self._words)
        self._since = time.monotonic()
        self._leaves = False
        self._number = 0
        self._sent: dict[bytes, Mine] = {}
        self._collecting: dict[Key, Mine] = {}
        self._others: OrderedDict[Key, Others] = OrderedDict()
        self._held_bytes = 0
        self._ended: list[tuple[Mine, list[bytes], StreamflowError | None]] = []  # collected, and whom to tell
        self._gone_on: OrderedDict[int, None] = OrderedDict()  # hashes of their keys
        self._going_on: set[Key] = set()  # collected, and not safe yet
        self._taken_back: OrderedDict[bytes, Envelope] = OrderedDict()  # parts, without their bodies, that went to the stream after all
        self._given_up: OrderedDict[Key, None] = OrderedDict()  # requests that this collector left to the stream

    async def start(self) -> None:
        if self._me.shard is not None:
            me = self._me
            await self._bus.listen(subjects.gather(me.flow, me.executor, str(me.shard), "part"), self._part_came)
            await self._bus.listen(subjects.gather(me.flow, me.executor, str(me.shard), "back"), self._asked_back)
            await self._bus.listen(self._words + "*", self._word_came)

    def leave(self) -> None:
        """This worker takes no more requests: parts of those that it does not have yet are for another."""
        self._leaves = True
        for key in [key for key in self._others if key not in self._collecting]:
            self._leave_to_the_stream(key)

    def send(self, execution: Execution, part: Envelope, step: Step, done: Done, store: Callable[[], None]) -> None:
        """Bring `part` to the others of `step`; `done` follows when they have gone on together, unless `store` is called instead."""
        is_large = execution.envelope.claim is not None or len(part.body) > self._bus.settings.inline_bytes
        if is_large or self._held_bytes + len(part.body) > MAX_HELD_BYTES:
            store()
            return
        collector = step.expected[crc32(part.ticket.encode()) % len(step.expected)]
        mine = Mine(part, step, done, store, is_again=execution.delivery.attempt > 1)
        if step.part != collector:
            self._hand_over(mine, collector)
        elif execution.delivery.attempt == 1 and not self._is_new and _key(part) not in self._given_up:
            self._collect(mine)
        else:  # the others have stored theirs
            self._leave_to_the_stream(_key(part))
            store()

    @property
    def _is_new(self) -> bool:
        """What was in the queue before this worker was there: its parts may have been sent while nobody listened, and are in the stream."""
        return time.monotonic() - self._since < NEW_S

    def _hold(self, mine: Mine, give_up: Callable[[], None]) -> None:
        self._held_bytes += len(mine.part.body)
        self._wait(mine, give_up)

    def _wait(self, mine: Mine, give_up: Callable[[], None]) -> None:
        """Half of what is left until the deadline is for the stream, where whoever tells the client what is missing looks for it."""
        left_s = mine.part.remaining_s()
        mine.timer = asyncio.get_running_loop().call_later(HOLD_S if left_s is None else max(0.0, min(HOLD_S, left_s / 2)), give_up)

    def _let_go(self, mine: Mine) -> None:
        self._held_bytes -= len(mine.part.body)
        if mine.timer is not None:
            mine.timer.cancel()

    # of those who are not the collector

    def _hand_over(self, mine: Mine, collector: str) -> None:
        self._number += 1
        name = b"%d" % self._number
        if not self._send(mine, collector, name, "part", mine.part):
            mine.store()
            return
        self._sent[name] = mine
        self._hold(mine, lambda: self._ask_back(name, collector))

    def _send(self, mine: Mine, collector: str, name: bytes, what: str, part: Envelope) -> bool:
        """False: the stream's way says what is wrong, or waits until it is not."""
        subject = subjects.gather(self._me.flow, self._me.executor, collector, what)
        try:
            self._bus.publish(subject, encode(part), f"{self._words}{name.decode()}")
        except StreamflowError:
            return False
        return True

    def _ask_back(self, name: bytes, collector: str) -> None:
        """The collector alone knows whether it has used the part; where it says nothing, the part goes to the stream unasked."""
        mine = self._sent[name]
        if mine.asked_back or not self._send(mine, collector, name, "back", mine.part._replace(body=b"")):
            self._take_back(name)
            return
        mine.asked_back = True
        self._wait(mine, lambda: self._ask_back(name, collector))

    def _word_came(self, subject: bytes, _reply: bytes, _header: bytes | None, words: bytes) -> None:
        """From a collector: what became of which parts. From the broker (503, ADR-22): no worker of that shard listens."""
        word, _, names = words.partition(b" ")
        if word != GONE_ON:
            self._take_back(subject[self._cut :])
            return
        for name in names.split():
            if (mine := self._sent.pop(name, None)) is not None:
                self._let_go(mine)
                if mine.is_again:  # an earlier attempt may have stored it
                    self._forget(mine.part)
                mine.done(None)
            elif (part := self._taken_back.pop(name, None)) is not None:
                asyncio.get_running_loop().call_later(FORGET_S, self._forget, part)

    def _take_back(self, name: bytes) -> None:
        mine = self._sent.pop(name, None)
        if mine is not None:
            _remember(self._taken_back, name, mine.part._replace(body=b""))
            self._let_go(mine)
            mine.store()

    # of the collector

    def _part_came(self, _subject: bytes, reply: bytes, _header: bytes | None, payload: bytes) -> None:
        try:
            part = decode(payload)
        except InvalidInput as error:
            log.warning("a shard's part is not read: %s", error)
            return
        key, now = _key(part), time.monotonic()
        if hash(key) in self._gone_on:  # another attempt, whose worker had died before it was told
            self._say_gone_on([reply])
            return
        self._drop_old(now)
        others = self._others.get(key)
        is_for_another = self._leaves and others is None and key not in self._collecting
        if key in self._given_up or is_for_another or self._held_bytes > MAX_HELD_BYTES:
            _remember(self._given_up, key, None)
            self._refuse(reply)
            return
        if others is None:
            others = self._others[key] = Others(now)
        others.parts[part.part] = part
        others.senders.append(reply)
        others.size_bytes += len(part.body)
        self._held_bytes += len(part.body)
        mine = self._collecting.get(key)
        if mine is not None:
            self._complete(key, mine)

    def _asked_back(self, _subject: bytes, reply: bytes, _header: bytes | None, payload: bytes) -> None:
        """Another shard wants its part back: the request meets in the stream, unless it has gone on."""
        try:
            key = _key(decode(payload))
        except InvalidInput as error:
            log.warning("a shard's question is not read: %s", error)
            return
        if hash(key) in self._gone_on:
            self._say_gone_on([reply])
        elif key not in self._going_on:
            if key in self._collecting:
                self._stop_collecting(key)
            else:
                self._leave_to_the_stream(key)
            self._refuse(reply)

    def _drop_old(self, now: float) -> None:
        """Of requests that another replica of this shard collects, or that will meet in the stream: their senders have given up too."""
        while self._others:
            key, others = next(iter(self._others.items()))
            if now - others.since < HOLD_S:
                return
            self._take_others(key)

    def _take_others(self, key: Key) -> Others | None:
        others = self._others.pop(key, None)
        if others is not None:
            self._held_bytes -= others.size_bytes
        return others

    def _collect(self, mine: Mine) -> None:
        key = _key(mine.part)
        self._drop_old(time.monotonic())
        self._collecting[key] = mine
        self._hold(mine, lambda: self._stop_collecting(key))
        self._complete(key, mine)

    def _complete(self, key: Key, mine: Mine) -> None:
        """Go on, if all are here."""
        others = self._others.get(key)
        if others is None:
            return
        present = {**others.parts, mine.step.part: mine.part}
        if not all(name in present for name in mine.step.expected):
            return
        del self._collecting[key]
        self._let_go(mine)
        self._take_others(key)
        self._going_on.add(key)
        parts = [present[name] for name in mine.step.expected]
        self._go_on(parts, mine.step, lambda error: self._end(key, mine, others.senders, error))

    def _stop_collecting(self, key: Key) -> None:
        mine = self._collecting.pop(key)
        self._let_go(mine)
        self._leave_to_the_stream(key)
        mine.store()

    def _leave_to_the_stream(self, key: Key) -> None:
        _remember(self._given_up, key, None)
        others = self._take_others(key)
        for sender in others.senders if others is not None else ():
            self._refuse(sender)

    def _refuse(self, sender: bytes) -> None:
        self._say(sender.decode(), STORE)

    def _end(self, key: Key, mine: Mine, senders: list[bytes], error: StreamflowError | None) -> None:
        """What goes on is safe."""
        self._going_on.discard(key)
        _remember(self._gone_on, hash(key), None)
        again = self._take_others(key)  # came meanwhile, of another attempt
        if not self._ended:
            asyncio.get_running_loop().call_later(TELL_S, self._tell)
        self._ended.append((mine, senders + again.senders if again is not None else senders, error))

    def _tell(self) -> None:
        """The others, and in the same write the broker: if this worker dies, either all who gave a part have it still, or nobody."""
        ended, self._ended = self._ended, []
        self._say_gone_on([sender for _, senders, _ in ended for sender in senders])
        for mine, _, error in ended:
            mine.done(error)

    def _say_gone_on(self, senders: list[bytes]) -> None:
        by_worker: dict[bytes, list[bytes]] = {}
        for sender in senders:
            worker, _, name = sender.rpartition(b".")
            by_worker.setdefault(worker, []).append(name)
        for worker, names in by_worker.items():
            self._say(f"{worker.decode()}.all", b" ".join((GONE_ON, *names)))

    def _say(self, subject: str, words: bytes) -> None:
        try:
            self._bus.publish(subject, words)
        except StreamflowError as error:  # whoever is not told stores its part
            log.debug("%s is not told: %s", subject, error)


def _remember(names: OrderedDict[K, V], name: K, value: V) -> None:
    names[name] = value
    if len(names) > REMEMBERED:
        names.popitem(last=False)


def _key(part: Envelope) -> Key:
    return part.flow, part.hop, part.run, part.ticket
