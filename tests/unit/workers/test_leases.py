"""What a worker has in hand, as the process beside it reads it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.workers import leases
from streamflow.workers.companion import is_stopped
from streamflow.workers.leases import LeaseFile, Leases, Terms

NEVER, LONG_AGO = 0.0, 1.0
TERMS = Terms(4711, 1.25, 0.6, math.inf)


@pytest.fixture
def page() -> Leases:
    return Leases()


def subject(number: int) -> str:
    return f"$JS.ACK.sf_shop_encoder.now.1.{number}.{number}.1763650000000000000.{number}"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12))))
def test_what_is_held_is_what_was_taken_and_not_let_go(steps: list[tuple[bool, int]]) -> None:
    page, expected = Leases(), set[str]()
    for is_taken, number in steps:
        name = subject(10**number)
        if is_taken:
            page.hold(name, NEVER)
            expected.add(name)
        else:
            page.release(name)
            expected.discard(name)
    assert sorted(page.held()) == sorted(expected)


@pytest.fixture
def file() -> Iterator[LeaseFile]:
    made = LeaseFile.new()
    yield made
    os.close(made.descriptor)


@contextmanager
def worker(file: LeaseFile) -> Iterator[int]:
    """A process that has one delivery in hand, until the block ends."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        page = file.claim()
        page.hold(subject(os.getpid()), NEVER)
        page.announce(("sf.shop.ctl.announce", b"here"))
        page.open("encoder", {"url": "nats://x"}, TERMS)
        page.beat()
        os.write(tell, b".")
        time.sleep(60)
        os._exit(1)
    try:
        assert os.read(told, 1) == b"."
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(told)
        os.close(tell)


def test_another_process_reads_it(file: LeaseFile) -> None:
    assert file.used() == []
    with worker(file) as pid:
        assert file.used() == [0]
        page = file.leases(0)
        assert page.held() == page.due(0.0) == [subject(pid)]
        assert page.announcement == ("sf.shop.ctl.announce", b"here")
        assert page.who == ("encoder", {"url": "nats://x"})
        assert page.terms == TERMS
        assert 0.0 < page.silent_s < 30.0


def test_a_place_is_free_when_its_worker_has_ended(file: LeaseFile) -> None:
    with worker(file) as first:
        with worker(file) as second:
            assert [file.leases(place).held() for place in file.used()] == [[subject(first)], [subject(second)]]
            assert not file.lock(0) and not file.lock(1)
        assert file.lock(1)
        file.unlock(1)
    with worker(file) as third:
        assert file.leases(0).held() == [subject(third)]
    page = file.claim()
    assert page.held() == [] and page.terms is None and page.silent_s == 0.0


def test_who_finds_no_place_works_without(file: LeaseFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_PLACES", 1)
    with worker(file) as pid:
        page = file.claim()
        page.hold(subject(1), NEVER)
        assert page.held() == [subject(1)] and file.leases(0).held() == [subject(pid)]


def test_a_clock_that_is_set_back_delays_no_sign_of_life(page: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    page.hold(subject(1), NEVER)
    monkeypatch.setattr(time, "time", lambda began=time.time(): began - 3600)
    assert page.due(0.0) == [subject(1)]


def test_due_is_what_the_broker_has_not_heard_of_for_long_and_wants_to(page: Leases) -> None:
    page.hold(subject(1), NEVER)
    page.hold(subject(2), time.time() + 60)
    page.hold(subject(3), LONG_AGO)
    assert page.due(60.0) == []
    assert page.due(0.0) == [subject(1), subject(2)]
    assert page.due(5.0) == [], "they were told of just now"


def test_a_second_hold_sets_the_deadline(page: Leases) -> None:
    page.hold(subject(1), NEVER)
    page.hold(subject(1), LONG_AGO)
    assert page.due(0.0) == [] and page.held() == [subject(1)]
    page.release(subject(1))
    assert page.held() == []


def test_nothing_is_silent_before_the_work_and_after_it(page: Leases) -> None:
    assert page.silent_s == 0.0 and page.terms is None and page.announcement is None
    page.beat()
    time.sleep(0.001)
    assert page.silent_s > 0.0
    page.close()
    assert page.silent_s == 0.0


def test_an_announcement_that_no_message_can_hold_leaves_the_one_before(page: Leases) -> None:
    for payload in (b"first", b"x" * (3 << 20)):
        page.announce(("subject", payload))
        assert page.announcement == ("subject", b"first")
    page.announce(("subject", b"later"))
    assert page.announcement == ("subject", b"later")


def test_more_than_there_is_room_for_is_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_PLACE_BYTES", leases._SLOTS_AT + 2 * leases._SLOT.size)
    page = Leases()
    for number in range(4):
        page.hold(subject(number), NEVER)
    assert page.held() == [subject(0), subject(1)]
    for number in (3, 0):
        page.release(subject(number))
    page.hold(subject(5), NEVER)
    assert sorted(page.held()) == [subject(1), subject(5)]


def test_a_stopped_process_is_told_from_one_that_works() -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"], stdout=subprocess.PIPE)
    assert sleeper.stdout is not None
    try:
        sleeper.stdout.readline()
        assert not is_stopped(sleeper.pid)
        sleeper.send_signal(signal.SIGSTOP)
        os.waitpid(sleeper.pid, os.WUNTRACED)
        assert is_stopped(sleeper.pid)
    finally:
        sleeper.kill()
        sleeper.wait()
        sleeper.stdout.close()
    assert not is_stopped(sleeper.pid), "gone"
