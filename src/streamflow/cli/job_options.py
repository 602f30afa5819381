"""Flags of the commands about jobs: which flow, and by which way it is reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import click

from streamflow.broker.errors import InvalidInput
from streamflow.broker.exit_codes import FAILED, OK
from streamflow.broker.settings import BrokerSettings
from streamflow.client.sync_client import SyncClient
from streamflow.jobs.handle import Job
from streamflow.jobs.status import JobStatus, State

from .options import broker_url, flag, given

F = TypeVar("F", bound=Callable[..., Any])


def place(function: Any) -> Any:
    """`--flow`, and `--broker` or `--host`."""
    host = flag(
        "--host", metavar="URL", env="STREAMFLOW_JOB_HOST", help="A gateway instead of the broker: grpc:// or http:// with host:port."
    )
    return flag("--flow", metavar="NAME", help="Flow on the broker; a gateway serves one.")(broker_url(host(function)))


def flags_of(command: str) -> Callable[..., Callable[[F], F]]:
    """`flag` for flags of one command alone, whose variables bear its name: STREAMFLOW_SUBMIT_KEY."""

    def own(name: str, *more: str, **options: Any) -> Callable[[F], F]:
        variable = name.lstrip("-").replace("-", "_")
        return flag(name, *more, env=f"STREAMFLOW_{command}_{variable}".upper(), **options)

    return own


@contextmanager
def client(flow: str | None, broker_url: str | None, host: str | None) -> Iterator[SyncClient]:
    """A client for the flow. Raises `InvalidInput` where the flow is not said."""
    if host is None and flow is None:
        raise InvalidInput("--flow: required, a broker may serve several (or --host URL for a gateway)")
    address = host or BrokerSettings(**given({"broker_url": broker_url})).broker_url
    with SyncClient(address) as made:
        yield made


class Moment(click.ParamType[float]):
    """A date (2026-01-31T12:00, local time unless it says otherwise) or Unix seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return float(value)
        except ValueError:
            pass
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            self.fail(f"a date such as 2026-01-31T12:00 or Unix seconds are needed, not {value!r}", param, ctx)


class Rate(click.ParamType[float]):
    """100 or 100/s."""

    name = "n/s"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return float(str(value).removesuffix("/s"))
        except ValueError:
            self.fail(f"requests a second are needed, e.g. 100/s, not {value!r}", param, ctx)


def line(status: JobStatus) -> str:
    """One job in words."""
    failed = f", {status.failed} failed" if status.failed else ""
    gone = f", {status.gone} gone before they ran (expired, or purged)" if status.gone else ""
    waits = f"; {status.waits}" if status.waits else ""
    return (
        f"{status.id} {status.state.value}: {status.done} of {status.total} requests done{failed}{gone} "
        f"({status.flow}{status.endpoint}){waits}"
    )


def exit_code(status: JobStatus) -> int:
    """1 for a job that is over and of which requests failed, or vanished."""
    return FAILED if status.is_over and status.failed + status.gone else OK


def await_end(job: Job) -> int:
    """Show how far a job is until it is over; the exit code."""
    status = job.wait(show_progress=True)
    click.secho(line(status), fg=colour(status), err=True)
    return exit_code(status)


def colour(status: JobStatus) -> str | None:
    return {State.CANCELLED: "yellow", State.PAUSED: "yellow"}.get(status.state, "red" if status.failed else None)
