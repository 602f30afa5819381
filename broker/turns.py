"""Whose turn it is when several tenants wait: tenants take turns, and so do the jobs or requests of each. Pure.

A feeder asks it which job to feed next, a gateway which request to let in next.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Turns(Generic[T]):
    """A queue of members that want a turn, each of a tenant.

    Who is new, or wants another turn, comes behind the others. So between two turns of a tenant, or before its first one, each other
    tenant has at most one, however many members it has; who wants none costs nothing and saves nothing up.
    """

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()  # both in the order of their turns

    def want(self, tenant: str, member: T) -> None:
        """`member` waits for one turn; it may wait for it already."""
        self._tenants.setdefault(tenant, OrderedDict()).setdefault(member)

    def give_up(self, tenant: str, member: T) -> None:
        """`member` waits no longer, if it did."""
        members = self._tenants.get(tenant, OrderedDict())
        members.pop(member, None)
        if not members:
            self._tenants.pop(tenant, None)

    def waiting(self, tenant: str) -> int:
        return len(self._tenants.get(tenant, ()))

    def take_one(self) -> T | None:
        """The member whose turn it is, which waits no longer; None when none does."""
        if not self._tenants:
            return None
        tenant, members = self._tenants.popitem(last=False)
        member, _ = members.popitem(last=False)
        if members:
            self._tenants[tenant] = members
        return member

    def take(self, can: Callable[[T], bool]) -> Iterator[T]:
        """Members as their turn comes, also those that want one meanwhile. Who `can` not now keeps its place, and is not asked again; its
        tenant's next one goes instead."""
        kept: dict[str, list[T]] = {}
        had_turn: dict[str, None] = {}  # in the order of their last ones
        while self._tenants:
            tenant, members = next(iter(self._tenants.items()))
            member, _ = members.popitem(last=False)
            self._tenants.move_to_end(tenant)
            if not members:
                del self._tenants[tenant]
            if can(member):
                had_turn.pop(tenant, None)
                had_turn[tenant] = None
                yield member
                continue
            if members:
                self._tenants.move_to_end(tenant, last=False)
            kept.setdefault(tenant, []).append(member)
        for tenant in (*(tenant for tenant in kept if tenant not in had_turn), *had_turn):
            for member in kept.get(tenant, ()):
                self.want(tenant, member)
