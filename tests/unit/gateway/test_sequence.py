"""What a stream's reader gets, however its parts arrive."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow.broker.credit import (
    ALL_BYTES,
    GONE,
    LEAST_BYTES,
    MAX_EARLY,
    MOST_BYTES,
    REPORT_PARTS,
    SUPERSEDED,
    WINDOW_PARTS,
    Report,
    window_bytes,
)
from streamflow.broker.envelope import JSON, Envelope
from streamflow.broker.errors import Code, Status
from streamflow.gateway.sequence import Sequence


class Reader:
    """A sequence, what it reported and what came out of it."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, Report]] = []
        self.window_bytes = LEAST_BYTES
        self.sequence = Sequence("", self._hear, lambda: self.window_bytes)

    def _hear(self, source: str, payload: bytes) -> None:
        self.reports.append((source, Report.decode(payload)))

    async def drain(self) -> list[Envelope]:
        async with asyncio.timeout(5), aclosing(self.sequence.read()) as parts:
            return [part async for part in parts]


def part(position: int, attempt: int = 1, *, final: bool = False, body: bytes = b"?", run: str = "", source: str = "") -> Envelope:
    body = b"" if final else b"%d.%d" % (attempt, position) if body == b"?" else body
    return Envelope(
        "r1", content_type=JSON, position=position, final=final, stream=True, source=source or f"worker.{attempt}", attempt=attempt,
        run=run, body=body, pieces=(len(body),) if body else (),
    )  # fmt: skip


def probe(attempt: int, source: str = "", run: str = "") -> Envelope:
    return part(-1, attempt, body=b"", source=source, run=run)


async def bodies(reader: Reader) -> list[str]:
    found = await reader.drain()
    assert [each.position for each in found] == list(range(len(found)))
    assert [each.final for each in found] == [False] * (len(found) - 1) + [True] and not found[-1].body
    return [bytes(each.body).decode() for each in found[:-1]]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 40), st.randoms(use_true_random=False), st.integers(0, 20))
def test_any_order_with_any_repetition_comes_out_once_and_in_order(count: int, chance: object, extra: int) -> None:
    async def main() -> None:
        reader = Reader()
        sent = [part(position) for position in range(count)] + [part(count, final=True)]
        sent += [chance.choice(sent) for _ in range(extra)]  # type: ignore[attr-defined]
        chance.shuffle(sent)  # type: ignore[attr-defined]
        for each in sent:
            reader.sequence.arrive(each)
        assert reader.sequence.ended and reader.sequence.dropped == extra
        assert await bodies(reader) == [f"1.{position}" for position in range(count)]

    asyncio.run(main())


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 30), st.randoms(use_true_random=False))
def test_attempts_never_mix(count: int, chance: object) -> None:
    """Parts of three attempts in any order: the attempt of what comes out never falls, and with all of the last one nothing is missing."""

    async def main() -> None:
        reader = Reader()
        sent = [part(position, attempt) for position in range(count) for attempt in (1, 2)] + [part(count, 1, final=True)]
        chance.shuffle(sent)  # type: ignore[attr-defined]
        for each in sent[: chance.randrange(len(sent) + 1)]:  # type: ignore[attr-defined]
            reader.sequence.arrive(each)
        for position in range(count + 1):
            reader.sequence.arrive(part(position, 3, final=position == count))
        found = await bodies(reader)
        assert [int(body.split(".")[1]) for body in found] == list(range(count))
        attempts = [int(body.split(".")[0]) for body in found]
        assert attempts == sorted(attempts)

    asyncio.run(main())


async def test_a_run_that_was_published_again_wins_over_any_attempt_of_the_old_one() -> None:
    reader = Reader()
    reader.sequence.arrive(part(0, 4))
    reader.sequence.restart("again")
    reader.sequence.arrive(part(1, 4))
    assert reader.sequence.probed(probe(1, "new.1", run="again")) == Report(0, 2).encode()
    reader.sequence.arrive(part(2, 5))
    reader.sequence.arrive(part(2, 1, source="new.1", run="again", body=b"new"))
    reader.sequence.arrive(part(3, 1, source="new.1", run="again", final=True))
    assert await bodies(reader) == ["4.0", "4.1", "new"]


async def test_probes_tell_where_to_go_on_and_who_is_not_needed() -> None:
    reader = Reader()
    for position in range(3):
        reader.sequence.arrive(part(position))
    assert reader.sequence.probed(probe(1)) == Report(0, 3).encode()
    assert reader.sequence.probed(probe(1, "twin.1")) == GONE, "the same request twice in the queue: one is enough"
    assert reader.sequence.probed(probe(2)) == Report(0, 3).encode()
    assert reader.sequence.probed(probe(1)) == SUPERSEDED
    reader.sequence.arrive(part(3, 1))
    assert reader.sequence.dropped == 1
    reader.sequence.arrive(part(3, 2, final=True))
    assert reader.sequence.probed(probe(2)) == GONE


async def test_reports_follow_what_the_reader_takes() -> None:
    reader = Reader()
    for position in range(WINDOW_PARTS):
        reader.sequence.arrive(part(position))
    reader.reports.clear()
    async with aclosing(reader.sequence.read()) as parts:
        for _ in range(REPORT_PARTS + 1):
            await anext(parts)
        assert reader.reports == [("worker.1", Report(REPORT_PARTS, WINDOW_PARTS))]
        reader.sequence.probed(probe(1))
        await anext(parts)
        assert reader.reports[1:] == [("worker.1", Report(REPORT_PARTS + 1, WINDOW_PARTS))], (
            "who has asked is told of the next part at once"
        )


async def test_a_report_says_how_far_ahead_the_generator_may_be_and_is_repeated_when_asked() -> None:
    reader = Reader()
    reader.sequence.repeat()
    assert reader.reports == [], "nobody is there to hear it"
    reader.sequence.arrive(part(0))
    reader.window_bytes = 2 * LEAST_BYTES
    reader.sequence.repeat()
    assert [report for _, report in reader.reports] == [Report(0, 0), Report(0, 1, 2 * LEAST_BYTES)]
    reader.sequence.arrive(part(1, final=True))
    reader.sequence.repeat()
    assert len(reader.reports) == 2, "a stream that is whole needs no report"


@given(st.integers(0, 10_000))
def test_all_streams_together_have_what_a_gateway_can_spare_and_each_has_the_least(streams: int) -> None:
    each = window_bytes(streams)
    assert LEAST_BYTES <= each <= MOST_BYTES
    assert streams * each <= ALL_BYTES or each == LEAST_BYTES


async def test_several_documents_of_a_part_come_one_by_one_and_none_is_no_part() -> None:
    reader = Reader()
    reader.sequence.arrive(part(0)._replace(body=b"[1][22]", pieces=(3, 4)))
    reader.sequence.arrive(part(1, body=b""))
    reader.sequence.arrive(part(2, final=True)._replace(body=b"[3]", pieces=(3,)))
    assert await bodies(reader) == ["[1]", "[22]", "[3]"]


async def test_an_answer_that_is_no_part_is_split_too() -> None:
    reader = Reader()
    assert reader.sequence.arrive(Envelope("r1", content_type=JSON, stream=True, body=b"[1][2]", pieces=(3, 3)))
    assert await bodies(reader) == ["[1]", "[2]"]


@pytest.mark.parametrize(("position", "expected"), [(-1, 2), (3, 3)])
async def test_a_failure_comes_in_its_place_or_at_once(position: int, expected: int) -> None:
    """One that belongs to a part waits for those before it; a refusal, or a deadline of the gateway's, does not."""
    reader = Reader()
    failed = Status(Code.EXECUTOR_ERROR, "broken")
    reader.sequence.arrive(part(0))
    reader.sequence.arrive(part(1))
    failure = part(position, final=True)._replace(status=failed)
    reader.sequence.arrive(failure if position >= 0 else failure._replace(source=""))
    reader.sequence.arrive(part(2))
    found = await reader.drain()
    assert len(found) == expected + 1 and found[-1].status is failed and found[-1].position == expected


async def test_a_worker_that_does_not_keep_its_window_cannot_fill_the_gateway() -> None:
    reader = Reader()
    for position in range(1, MAX_EARLY + 2):
        reader.sequence.arrive(part(position))
    assert reader.sequence.ended
    (last,) = await reader.drain()
    assert last.status.code is Code.INTERNAL and "part 0 of the stream is missing" in last.status.description


async def test_a_later_attempt_that_is_shorter_is_a_failure_and_no_silent_end() -> None:
    reader = Reader()
    for position in range(3):
        reader.sequence.arrive(part(position))
    assert reader.sequence.arrive(part(2, 2, final=True))
    found = await reader.drain()
    assert len(found) == 4 and "the generator is not deterministic" in found[-1].status.description
