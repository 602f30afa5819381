"""`streamflow worker`: one replica of one executor, anywhere the broker can be reached."""

from __future__ import annotations

import os
from typing import Any

import click

from streamflow import logs

from .options import Assignment, JsonObject, State, broker_url, common, flag, given, start_logging, uses


@click.command(short_help="Run one replica of an executor.")
@uses("Executor: exec.yml, module.Class, or inline YAML.", required=True)
@flag("--flow", metavar="NAME", help="Flow it works for.  [default: default]")
@flag("--name", metavar="EXECUTOR", help="Its name in the flow.  [default: metas.name or the class]")
@broker_url
@flag("--replica", type=click.IntRange(0), help="Number of this replica, for names and logs.  [default: 0]")
@flag("--shard", type=click.IntRange(-1), help="Shard it holds.  [default: -1, not sharded]")
@flag("--workspace", metavar="DIR", help="Folder for the executor's own files.")
@flag("--py-modules", multiple=True, metavar="FILE", help="Python files to import before `uses` is looked up.")
@flag("--extra-search-paths", multiple=True, metavar="DIR", help="Folders in which files of `uses` are looked up, after this one.")
@flag("--uses-with", type=JsonObject(), metavar="JSON", help="Constructor arguments.")
@flag("--uses-metas", type=JsonObject(), metavar="JSON", help="Metas, over those of the file.")
@flag("--uses-requests", type=JsonObject(), metavar="JSON", help="Endpoint to method name.")
@flag("--uses-dynamic-batching", type=JsonObject(), metavar="JSON", help="Batching settings by endpoint.")
@flag("--concurrency", type=click.IntRange(1), help="Requests at the same time in async endpoints.  [default: 64]")
@flag("--drain-s", type=float, help="Seconds a stop may take to finish what runs.  [default: 30]")
@flag("--env", type=Assignment(), multiple=True, metavar="KEY=VALUE", help="Environment of the executor.")
@common
@click.pass_obj
def worker(state: State, /, env: tuple[tuple[str, str], ...], extra_search_paths: tuple[str, ...], **flags: Any) -> int:
    """Run one replica of an executor until Ctrl-C."""
    os.environ.update(env)
    from streamflow.broker.settings import WorkerSettings  # pydantic, and below docarray: 0.4 s
    from streamflow.workers import service

    start_logging(state)
    logs.rename(str(flags["name"] or "worker"))
    return service.run(WorkerSettings(**given(flags)), report=say, extra_search_paths=extra_search_paths)


def say(doing: str, message: str = "", /, **facts: Any) -> None:
    """A report for people; with ready, a gateway's addresses."""
    click.echo(f"{doing} {message}".strip(), err=True)
    for protocol, (host, port) in facts.get("addresses", {}).items():
        click.echo(f"  {protocol:<9} {host}:{port}", err=True)
