"""Names of requests and jobs that nobody wants any more, for a while: what has not started is dropped when it comes up."""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic

MOST = 10_000  # while they are new: a crowd may leave with all its requests still in the queue
FEW = 1_000  # of those that are not
NEW_S = 300.0


class Cancelled:
    """Bounded, so that a service whose clients often leave does not grow."""

    def __init__(self) -> None:
        self._since: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def __contains__(self, name: str) -> bool:
        return name in self._since

    def add(self, name: str) -> None:
        now = monotonic()
        self._since[name] = now
        oldest = next(iter(self._since.values()))
        if len(self._since) > (FEW if now - oldest > NEW_S else MOST):
            self._since.popitem(last=False)
