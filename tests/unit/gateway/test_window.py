"""Requests of one stream in flight."""

from __future__ import annotations

import asyncio

import pytest

from streamflow.broker.envelope import Envelope
from streamflow.broker.errors import Code
from streamflow.gateway.window import Window, answer_to

pytestmark = pytest.mark.feature("GW-24")

Futures = list[asyncio.Future[Envelope]]


def futures(count: int) -> Futures:
    return [asyncio.get_running_loop().create_future() for _ in range(count)]


async def all_of(window: Window[int]) -> list[int]:
    return [tag async for tag, _ in window]


def filled(window: Window[int], count: int) -> Futures:
    open_ones = futures(count)
    for number, future in enumerate(open_ones):
        window.add(number, future)
    return open_ones


async def finish(open_ones: Futures, order: list[int]) -> None:
    for number in order:
        open_ones[number].set_result(Envelope(str(number)))
        await asyncio.sleep(0)


async def test_answers_come_in_completion_order() -> None:
    window: Window[int] = Window(10)
    open_ones = filled(window, 3)
    window.close()
    await finish(open_ones, [2, 0, 1])
    assert await all_of(window) == [2, 0, 1]


async def test_answers_come_in_order_of_arrival_when_asked_for() -> None:
    window: Window[int] = Window(10, in_order=True)
    open_ones = filled(window, 3)
    window.close()
    reading = asyncio.create_task(all_of(window))
    await finish(open_ones, [2, 0, 1])
    assert await reading == [0, 1, 2]


async def test_a_known_answer_takes_its_turn() -> None:
    window: Window[int] = Window(2)
    window.add(7, Envelope("x"))
    window.close()
    assert await all_of(window) == [7]


async def test_room_is_there_only_after_the_answer_was_handed_on() -> None:
    window: Window[int] = Window(1)
    (future,) = filled(window, 1)
    waiting = asyncio.create_task(window.room())
    future.set_result(Envelope("0"))
    answers = window.__aiter__()
    await anext(answers)
    await asyncio.sleep(0)
    assert not waiting.done()
    following = asyncio.create_task(anext(answers, None))
    await asyncio.wait_for(waiting, 5)
    window.close()
    assert await following is None


@pytest.mark.parametrize("limit", [0, 3])
async def test_room_without_and_below_a_limit(limit: int) -> None:
    window: Window[int] = Window(limit)
    filled(window, 2)
    await asyncio.wait_for(window.room(), 5)


async def test_cancel_gives_up_all_and_ends_the_iteration() -> None:
    window: Window[int] = Window(0)
    open_ones = filled(window, 3)
    reading = asyncio.create_task(all_of(window))
    window.cancel()
    assert await asyncio.wait_for(reading, 5) == []
    assert all(future.cancelled() for future in open_ones)


async def test_an_answer_may_come_in_the_turn_in_which_all_is_given_up() -> None:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, failure: failures.append(failure))
    window: Window[int] = Window(10)
    (open_one,) = filled(window, 1)
    open_one.set_result(Envelope("0"))
    window.cancel()
    assert await all_of(window) == []
    await asyncio.sleep(0)
    assert not failures


async def test_a_request_that_is_cancelled_or_crashes_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    window: Window[int] = Window(0)
    first, second = filled(window, 2)
    first.cancel()
    second.set_exception(RuntimeError("bug"))
    window.close()
    assert [envelope.status.code async for _, envelope in window] == [Code.CANCELLED, Code.INTERNAL]
    assert "bug" in caplog.text
    assert (await answer_to(first)).status.code is Code.CANCELLED


async def test_cancelling_the_waiting_task_cancels_the_request() -> None:
    (future,) = futures(1)
    task = asyncio.create_task(answer_to(future))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert future.cancelled()
