"""The table of requests that wait for their answers."""

from __future__ import annotations

import asyncio
import time
import tracemalloc

from streamflow.broker.envelope import Envelope
from streamflow.gateway.correlator import Correlator, Waiting
from tests.waiting import eventually


def test_what_is_answered_is_not_remembered_until_its_deadline() -> None:
    correlator = Correlator(lambda _: None)
    deadline = time.time() + 1e6

    def answer_many() -> None:
        for number in range(20_000):
            request = Envelope(f"r{number}", deadline=deadline + number)
            correlator.register(Waiting(request, lambda _: None, 0.0))
            correlator.resolve(request)

    tracemalloc.start()
    try:
        answer_many()
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()


async def test_the_deadlines_of_what_is_open_are_kept_whatever_is_answered() -> None:
    late: list[str] = []
    correlator = Correlator(lambda waiting: late.append(waiting.envelope.request_id))
    now = time.time()
    for number in range(10_000):
        request = Envelope(f"r{number}", deadline=now + 0.01 * (number % 3))
        correlator.register(Waiting(request, lambda _: None, 0.0))
        if number % 100:
            correlator.resolve(request)
    watching = asyncio.create_task(correlator.watch_deadlines())
    await eventually(lambda: not len(correlator), what="no request is open")
    watching.cancel()
    assert sorted(late) == sorted(f"r{number}" for number in range(0, 10_000, 100))
