"""`streamflow submit`: hand in a file as a job and go home."""

from __future__ import annotations

from typing import Any

import click

from streamflow.broker.exit_codes import OK
from streamflow.broker.json_lines import Faults

from . import job_options
from .job_options import Rate
from .options import JsonObject, common

_SHOWN = 20

option = job_options.flags_of("submit")


@click.command()
@job_options.place
@option("--on", "endpoint", required=True, metavar="ENDPOINT", help="E.g. /index.")
@option(
    "--inputs", required=True, metavar="FILE", help="data.jsonl, .csv, .parquet, a pattern such as 'texts/*.txt', or - (lines of JSON)."
)
@option("--key", help="Submit under the same key as often as you like: it is one job.")
@option("--request-size", type=int, default=100, show_default=True, help="Documents in a request.")
@option("--parameters", type=JsonObject(), default=None, help="Of every request, as a JSON object.")
@option("--target-executor", metavar="REGEX", help="Executors that shall run.")
@option("--rate", type=Rate(), default=0.0, metavar="N/s", help="At most so many requests a second.")
@option("--tenant", metavar="NAME", help="Tenant whose share of the executors it takes; tenants with jobs get equal ones.")
@option("--strict", is_flag=True, help="Refuse a file with lines that cannot be read.")
@option("--wait", is_flag=True, help="Show how far it is until it is done; exit code 1 when requests failed.")
@common
def submit(flow: str | None, broker_url: str | None, host: str | None, endpoint: str, inputs: str, wait: bool, **options: Any) -> int:
    """Store a file's documents as a job of a flow and print its id.

    The job runs without this command, and without a gateway. Lines that cannot be read are left out and listed.
    """
    with job_options.client(flow, broker_url, host) as client:
        job = client.submit(endpoint, inputs, flow=flow, **options)
        click.echo(job.id)
        _tell(job.skipped)
        if wait:
            return job_options.await_end(job)
    return OK


def _tell(skipped: Faults) -> None:
    for fault in skipped.first[:_SHOWN]:
        click.secho(f"left out: {fault}", fg="yellow", err=True)
    if skipped.count:
        lines = "1 line" if skipped.count == 1 else f"{skipped.count} lines"
        click.secho(f"{lines} could not be read, the others run (--strict refuses such a file)", fg="yellow", err=True)
