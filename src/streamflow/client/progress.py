"""The bar of `show_progress=True`: requests done, and documents per second."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from .results import DataRequest

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """A context manager; `total` is the number of requests, None when unknown."""

    def __init__(self, total: int | None, shown: bool) -> None:
        self._progress: Progress | None = None
        self._total = total
        if shown:
            # Not for every client: 1 MB.
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (TextColumn("[progress.description]{task.description}"), BarColumn(), MofNCompleteColumn())
            self._progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), transient=False)

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
            self._task = self._progress.add_task("requests", total=self._total)
        return self

    def step(self, response: DataRequest) -> None:
        if self._progress is not None:
            self._progress.advance(self._task)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()
