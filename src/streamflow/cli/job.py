"""`streamflow job`: look after jobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import orjson

from streamflow.broker import codec
from streamflow.broker.envelope import JSON
from streamflow.broker.exit_codes import OK
from streamflow.jobs.handle import Job
from streamflow.jobs.status import JobResponse, JobStatus

from . import job_options
from .options import common

_HEADER = ("JOB", "STATE", "DONE", "TOTAL", "FAILED", "ENDPOINT", "CREATED", "TENANT")

job_id = click.argument("job_id", metavar="JOB")
as_json = click.option("--json", "as_json", is_flag=True, help="As JSON, one object a line.")


@click.group()
def job() -> None:
    """See, pause, resume and cancel the jobs of a flow, and read their results."""


@job.command()
@job_options.place
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest so many.")
@as_json
@common
def ls(flow: str | None, broker_url: str | None, host: str | None, limit: int, as_json: bool) -> int:
    """List jobs, newest first."""
    with job_options.client(flow, broker_url, host) as client:
        found = client.jobs(flow=flow, limit=limit)
    if as_json:
        for status in found:
            click.echo(_json(status))
    elif found:
        _table([_HEADER, *map(_row, found)])
    else:
        click.echo("There are no jobs.")
    return OK


@job.command(short_help="Say how far a job is.")
@job_id
@job_options.place
@as_json
@click.option("--wait", is_flag=True, help="Until it is done.")
@common
def status(job_id: str, flow: str | None, broker_url: str | None, host: str | None, as_json: bool, wait: bool) -> int:
    """Say how far a job is; exit code 1 when it is over and requests of it failed, or vanished."""
    with job_options.client(flow, broker_url, host) as client:
        handle = client.job(job_id, flow=flow)
        found = handle.wait(show_progress=not as_json) if wait else handle.status()
    click.echo(_json(found) if as_json else click.style(job_options.line(found), fg=job_options.colour(found)))
    return job_options.exit_code(found)


@job.command(short_help="Print results as they are recorded.")
@job_id
@job_options.place
@click.option("--start", type=click.IntRange(0), default=0, metavar="CURSOR", help="Behind this result, by its `cursor`.")
@click.option("--no-wait", is_flag=True, help="Only those that are there.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="File to append to instead of printing.")
@common
def results(job_id: str, flow: str | None, broker_url: str | None, host: str | None, start: int, no_wait: bool, output: Path | None) -> int:
    """Print results as they are recorded, a line of JSON each: number, cursor, status, documents."""
    with job_options.client(flow, broker_url, host) as client, click.open_file(str(output or "-"), "ab") as file:
        for response in client.job(job_id, flow=flow).results(start=start, follow=not no_wait):
            file.write(_result(response) + b"\n")
            file.flush()
    return OK


def _command(name: str, text: str, act: Callable[[Job], JobStatus]) -> None:
    @job.command(name, help=text)
    @job_id
    @job_options.place
    @common
    def command(job_id: str, flow: str | None, broker_url: str | None, host: str | None) -> int:
        with job_options.client(flow, broker_url, host) as client:
            click.echo(job_options.line(act(client.job(job_id, flow=flow))))
        return OK


_command("pause", "Start nothing more of a job until `resume`.", Job.pause)
_command("resume", "Undo `pause`.", Job.resume)
_command("cancel", "Run nothing more of a job; its results stay.", Job.cancel)


def _json(status: JobStatus) -> bytes:
    return orjson.dumps(dataclasses.asdict(status))


def _row(status: JobStatus) -> tuple[str, ...]:
    created = datetime.fromtimestamp(status.created).strftime("%Y-%m-%d %H:%M:%S")
    return status.id, status.state.value, str(status.done), str(status.total), str(status.failed), status.endpoint, created, status.tenant


def _table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for number, row in enumerate(rows):
        click.secho("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip(), bold=number == 0)


def _result(response: JobResponse) -> bytes:
    """Documents are printed as the executor wrote them, whatever form they are stored in."""
    head: dict[str, Any] = {"number": response.number, "cursor": response.cursor, "code": response.status.code.value}
    if response.ok:
        head["data"] = orjson.Fragment(codec.encode(response.docs, JSON) if len(response.docs) else b"[]")
        head["parameters"] = response.parameters
    else:
        head["description"] = response.status.description
    return orjson.dumps(head, default=str, option=orjson.OPT_NON_STR_KEYS)
