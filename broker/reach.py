"""Whether the server that we are connected to reaches most of its cluster.

One that is cut off from the others, or frozen, keeps its connections: what is published there is acknowledged by nobody, and where it was
the leader it goes on to answer, and to send heartbeats, for 10 to 20 s. So each connection asks all servers once a second how its account
fares there (`STATZ`, which every server answers to every account) and counts who answers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from .errors import StreamflowError
from .lean import LeanClient

log = logging.getLogger(__name__)

PING = "$SYS.REQ.ACCOUNT.PING.STATZ"
_BODY = b'{"include_unused":true}'  # else only servers with connections of this account answer
PERIOD_S = 1.0
MISSES = 2  # rounds in a row; each move in vain doubles it
MOST_MISSES = 60
DOUBT_S = 12.0  # nothing from a stream or consumer for so long: an election, 4 to 9 s, is over by then
MOST_DOUBT_S = 120.0


class Reach:
    """Calls `leave` when the server reaches no majority. `heard` is to be called with what arrives on `inbox`.*"""

    def __init__(self, client: LeanClient, inbox: str, named: int, leave: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """`named`: how many servers the settings name, for a connection whose first server is the one that is cut off."""
        self._client = client
        self.inbox = inbox
        self._cut = len(inbox) + 1
        self._size = named
        self._leave = leave
        self._round = 0
        self._near: set[str] = set()
        self._missed = 0
        self._patience = MISSES
        self._is_answered = True
        self._doubt_s = DOUBT_S
        self._next_doubt = 0.0
        self._task: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="reach of the broker")

    def stop(self) -> None:
        for task in (self._task, self._leaving):
            if task is not None:
                task.cancel()

    def forbid(self) -> None:
        """This user may not ask (its rights are of an older version): nothing is known, so nothing is done."""
        self._is_answered = False
        log.warning("a broker that is cut off from its cluster will not be noticed: run `streamflow auth generate` again")

    def doubt(self, what: str) -> None:
        """Nothing has come from `what` for `DOUBT_S`. The servers' own connections, by which `STATZ` goes, are others than those of our
        account: so another server may reach what this one does not. Not again before `DOUBT_S`, and twice as long each time."""
        now = time.monotonic()
        if not self._client.is_clustered or now < self._next_doubt:
            return
        self._doubt_s = min(2 * self._doubt_s, MOST_DOUBT_S) if now - self._next_doubt < MOST_DOUBT_S else DOUBT_S
        self._next_doubt = now + self._doubt_s
        log.warning("nothing comes from %s: trying another broker of the cluster", what)
        self._leaving = asyncio.create_task(self._leave(), name="leave the broker")

    def heard(self, subject: bytes, _reply: bytes, header: bytes | None, payload: bytes) -> None:
        if subject[self._cut :] != b"%d" % self._round:
            return  # late: of a round that is counted
        if header is not None and header[9:12] == b"503":
            self._is_answered = False
            return
        server = json.loads(payload)["server"]
        if server.get("cluster") == self._client.cluster:  # not those of other clusters that are joined by gateways
            self._near.add(server["id"])

    async def _watch(self) -> None:
        while self._is_answered:
            asked = time.monotonic()
            server = self._client.server_id
            is_asked = self._client.is_clustered and self._client.is_connected and self._ask()
            await asyncio.sleep(PERIOD_S)
            is_late = time.monotonic() - asked > 1.5 * PERIOD_S  # this process stood still: the answers may be unread
            if is_asked and not is_late and self._client.is_connected and server == self._client.server_id:
                await self._count()

    def _ask(self) -> bool:
        self._round += 1
        self._near.clear()
        try:
            self._client.send(PING, _BODY, f"{self.inbox}.{self._round}")
        except StreamflowError as error:
            log.debug("the cluster is not asked: %s", error)
            return False
        return True

    async def _count(self) -> None:
        self._size = max(self._size, len(self._near))
        if 2 * len(self._near) > self._size:
            self._missed, self._patience = 0, MISSES
            return
        self._missed += 1
        if self._missed < self._patience:
            return
        log.warning("the broker reaches %d of %d servers of its cluster: trying another one", len(self._near), self._size)
        self._missed, self._patience = 0, min(2 * self._patience, MOST_MISSES)
        await self._leave()
