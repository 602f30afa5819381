"""Turns: whatever tenants and jobs come and go, nobody who wants a turn waits for more than one of each other tenant."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from streamflow.broker.turns import Turns

TENANTS = ("", "a", "b", "c")
JOBS = [(tenant, f"{tenant}-{number}") for tenant in TENANTS for number in range(2)]
Passed = dict[str, Counter[str]]  # of who waits and can: turns of each of the others meanwhile


def tenant_of(job: str) -> str:
    return job.rpartition("-")[0]


class Fair(RuleBasedStateMachine):
    """Jobs want turns, give up, are blocked and freed; some get turns, of a few places at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: Turns[str] = Turns()
        self.wanting: set[tuple[str, str]] = set()
        self.blocked: set[str] = set()
        self.tenants: Passed = {}
        self.jobs: Passed = {}  # by jobs of the same tenant

    @rule(jobs=st.lists(st.sampled_from(JOBS), min_size=3, unique=True))
    def want(self, jobs: list[tuple[str, str]]) -> None:
        for job in jobs:
            self.turns.want(*job)
            self.wanting.add(job)
            self._count()

    @rule(job=st.sampled_from(JOBS))
    def give_up(self, job: tuple[str, str]) -> None:
        self.turns.give_up(*job)
        self.wanting.discard(job)
        self._count()

    @rule(job=st.sampled_from(JOBS))
    def block_or_free(self, job: tuple[str, str]) -> None:
        self.blocked ^= {job[1]}
        self._count()

    @rule(again=st.booleans(), places=st.integers(1, 5))
    def take(self, again: bool, places: int) -> None:
        taken: list[str] = []
        for job in self.turns.take(lambda job: len(taken) < places and job not in self.blocked):
            taken.append(job)
            self._turn_of(job)
            if again:
                self.turns.want(tenant_of(job), job)
                self.wanting.add((tenant_of(job), job))
                self._count()
        assert len(taken) == places or not self._able()

    @rule()
    def take_one(self) -> None:
        self.blocked.clear()
        self._count()
        job = self.turns.take_one()
        assert (job is None) == (not self.wanting)
        if job is not None:
            self._turn_of(job)

    def _able(self) -> set[tuple[str, str]]:
        return {(tenant, job) for tenant, job in self.wanting if job not in self.blocked}

    def _turn_of(self, job: str) -> None:
        tenant = tenant_of(job)
        assert (tenant, job) in self._able()
        self.wanting.remove((tenant, job))
        self.tenants.pop(tenant, None)
        self._count()
        for other, passed in self.tenants.items():
            passed[tenant] += other != tenant
        for other, passed in self.jobs.items():
            passed[job] += tenant_of(other) == tenant

    def _count(self) -> None:
        """Begin with those that can have a turn from now on; who cannot any more is not counted on."""
        able = self._able()
        self.tenants = {tenant: self.tenants.get(tenant, Counter()) for tenant, _ in able}
        self.jobs = {job: self.jobs.get(job, Counter()) for _, job in able}

    @invariant()
    def nobody_is_passed_twice(self) -> None:
        for passed in (*self.tenants.values(), *self.jobs.values()):
            assert max(passed.values(), default=0) <= 1, (self.tenants, self.jobs)

    @invariant()
    def all_who_want_are_counted(self) -> None:
        for tenant in TENANTS:
            assert self.turns.waiting(tenant) == sum(other == tenant for other, _ in self.wanting)


TestFair = pytest.mark.feature("QU-05")(Fair.TestCase)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 40))
def test_shares_are_equal_while_all_have_work(jobs: list[int], rounds: int) -> None:
    """However many jobs a tenant has."""
    turns: Turns[str] = Turns()
    for tenant, number in enumerate(jobs):
        for job in range(number):
            turns.want(str(tenant), f"{tenant}-{job}")
    had: Counter[str] = Counter()
    for member in turns.take(lambda _: had.total() < rounds * len(jobs)):
        had[tenant_of(member)] += 1
        turns.want(tenant_of(member), member)
    assert all(had[str(tenant)] == rounds for tenant in range(len(jobs)))


def test_who_could_not_keeps_its_place() -> None:
    turns: Turns[str] = Turns()
    for tenant in ("a", "b"):
        turns.want(tenant, f"{tenant}1")
        turns.want(tenant, f"{tenant}2")
    assert list(turns.take(lambda job: job == "b1")) == ["b1"]
    assert list(turns.take(lambda job: True)) == ["a1", "b2", "a2"]
    assert list(turns.take(lambda job: True)) == []
