"""`streamflow replay`: stored requests once more."""

from __future__ import annotations

from typing import Any

import click

from streamflow.broker.exit_codes import OK

from . import job_options
from .job_options import Moment, Rate
from .options import common

option = job_options.flags_of("replay")


@click.command()
@job_options.place
@option("--job", metavar="ID", help="Inputs of this job; without it the flow's journal of online requests.")
@option("--failed-only", is_flag=True, help="Only those of the job's requests that failed.")
@option("--since", type=Moment(), default=0.0, metavar="TIME", help="Stored from then on, e.g. 2026-01-31T12:00.")
@option("--until", type=Moment(), default=0.0, metavar="TIME")
@option("--from-seq", type=click.IntRange(0), default=0, help="Or by sequence in the stream, both ends included.")
@option("--to-seq", type=click.IntRange(0), default=0)
@option("--rate", type=Rate(), default=0.0, metavar="N/s", help="At most so many requests a second.")
@option("--to-flow", metavar="NAME", help="Run them in another flow on this broker.")
@option("--key", help="The same key is the same replay.")
@option("--tenant", metavar="NAME", help="Tenant whose share of the executors it takes; default: that of the job.")
@option("--wait", is_flag=True, help="Show how far it is until it is done; exit code 1 when requests failed.")
@common
def replay(flow: str | None, broker_url: str | None, host: str | None, wait: bool, **options: Any) -> int:
    """Run stored requests again as a new job, and print its id. The results of then stay."""
    with job_options.client(flow, broker_url, host) as client:
        job = client.replay(flow=flow, **options)
        click.echo(job.id)
        if job.gone:
            click.secho(f"{job.gone} of the inputs are gone: they were kept until they expired", fg="yellow", err=True)
        if wait:
            return job_options.await_end(job)
    return OK
