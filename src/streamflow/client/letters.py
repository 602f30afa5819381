"""`client.dead_letters()`: what executors gave up on, over the broker itself (`nats://`), with the rights of an operator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from streamflow.broker import dead_letters
from streamflow.broker.bus import Bus
from streamflow.broker.dead_letters import DeadLetter, Retried

from .background import background


class AsyncDeadLetters:
    """Those of one flow. All methods raise `NotFound` for a letter that is not there (any more), and `Unavailable`."""

    def __init__(self, connect: Callable[[], Awaitable[Bus]], flow: str) -> None:
        self._connect = connect
        self.flow = flow

    async def find(self, *, executor: str = "", job: str = "") -> list[DeadLetter]:
        """Oldest first; of one executor, of one job."""
        bus = await self._connect()
        return [letter async for letter in dead_letters.letters(bus, self.flow, executor=executor, job=job)]

    async def get(self, letter_id: int) -> DeadLetter:
        return await dead_letters.find(await self._connect(), self.flow, letter_id)

    async def documents(self, letter: DeadLetter) -> Any:
        """What the request held, as plain values. Raises `InvalidInput` for what cannot be told so."""
        return dead_letters.documents(await dead_letters.whole(await self._connect(), letter))

    async def retry(self, letter: DeadLetter) -> Retried:
        """Put the request back into its executor's queue, once. Raises `InvalidInput` for bytes that are no request."""
        return await dead_letters.retry(await self._connect(), letter)

    async def remove(self, letter: DeadLetter) -> bool:
        """Whether it was there."""
        return await dead_letters.remove(await self._connect(), letter)


class DeadLetters:
    """`AsyncDeadLetters` for programs without an event loop."""

    def __init__(self, letters: AsyncDeadLetters) -> None:
        self._letters = letters
        self.flow = letters.flow

    def find(self, *, executor: str = "", job: str = "") -> list[DeadLetter]:
        return background().run(self._letters.find(executor=executor, job=job))

    def get(self, letter_id: int) -> DeadLetter:
        return background().run(self._letters.get(letter_id))

    def documents(self, letter: DeadLetter) -> Any:
        return background().run(self._letters.documents(letter))

    def retry(self, letter: DeadLetter) -> Retried:
        return background().run(self._letters.retry(letter))

    def remove(self, letter: DeadLetter) -> bool:
        return background().run(self._letters.remove(letter))
