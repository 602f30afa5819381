"""The bar of `job.wait(show_progress=True)`: stored requests done, requests a second, and when the rest will be."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from .status import JobStatus

if TYPE_CHECKING:
    from rich.progress import Progress


class JobBar:
    """A context manager; shows nothing unless `shown`."""

    def __init__(self, job_id: str, shown: bool) -> None:
        self._progress: Progress | None = None
        if shown:
            # Not for every client: 1 MB.
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = TextColumn("job {task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[more]}")
            console = Console(stderr=True)
            self._progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(elapsed_when_finished=True), console=console)
            self._task = self._progress.add_task(job_id, total=None, more="")

    def __enter__(self) -> JobBar:
        if self._progress is not None:
            self._progress.start()
        return self

    def show(self, status: JobStatus) -> None:
        if self._progress is not None:
            failed = f"{status.failed} failed" if status.failed else ""
            state = "" if status.state.value in ("running", "done") else status.state.value
            more = ", ".join(filter(None, (state, failed)))
            self._progress.update(self._task, total=status.total, completed=status.done, more=more)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()
