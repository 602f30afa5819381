"""`streamflow doctor`: does the broker hold what was promised, or what must change in a file written for Jina."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from streamflow.broker.exit_codes import FAILED, OK
from streamflow.broker.settings import BrokerSettings
from streamflow.doctor import broker, flow
from streamflow.doctor.verdict import Level, Verdict

from .options import DURABILITIES, broker_url, common, flag, given

_MARKS = {Level.OK: ("ok  ", "green"), Level.WARN: ("warn", "yellow"), Level.FAIL: ("FAIL", "red")}


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@broker_url
@flag("--durability", type=click.Choice(DURABILITIES), help="What the broker is to be held to, besides what its flows promise.")
@flag("--monitoring", "monitoring_url", env="STREAMFLOW_MONITORING_URL", metavar="URL", help="Where its monitoring answers, with http://.")
@flag("--json", "as_json", env="STREAMFLOW_DOCTOR_JSON", is_flag=True, help="One JSON object per line.")
@common
def doctor(file: Path | None, as_json: bool, **flags: Any) -> int:
    """Without FILE: examine the broker and the flows on it. With FILE: say what must change in a flow, deployment or executor file
    written for Jina, and in the Python files that it names; nothing of them is run.

    Exit code 0 when all is well, 1 when something fails or must change; warnings and notes do not count.
    """
    if file is not None:
        return _of_file(file, as_json)
    return asyncio.run(_of_broker(BrokerSettings(**given(flags)), as_json))


def _of_file(file: Path, as_json: bool) -> int:
    found = flow.examine(file)
    for one in found:
        click.echo(json.dumps(asdict(one)) if as_json else str(one))
    changes = sum(not one.is_note for one in found)
    click.echo(f"{changes} to change" if changes else "nothing must change", err=True)
    return FAILED if changes else OK


async def _of_broker(settings: BrokerSettings, as_json: bool) -> int:
    failed = False
    async for one in broker.examine(settings):
        click.echo(json.dumps(asdict(one)) if as_json else _line(one))
        failed = failed or one.level is Level.FAIL
    return FAILED if failed else OK


def _line(verdict: Verdict) -> str:
    word, colour = _MARKS[verdict.level]
    return f"{click.style(word, fg=colour)} {verdict.text}{f'; {verdict.advice}' if verdict.advice else ''}"
