"""`streamflow worker`: one replica of one executor, anywhere the broker can be reached."""

from __future__ import annotations

import os
from typing import Any

import click

from streamflow import logs
from streamflow.broker.settings import WorkerSettings

from .console import say
from .options import Assignment, JsonObject, State, broker_url, common, flag, given, logging_flags, own_logging, start_logging, uses


@click.command()
@uses("Executor: exec.yml, module.Class, or inline YAML.", required=True)
@flag("--flow", metavar="NAME", help="Flow it works for.  [default: default]")
@flag("--name", metavar="EXECUTOR", help="Its name in the flow.  [default: metas.name or the class]")
@broker_url
@flag("--replica", type=click.IntRange(0), help="Number of this replica, for names and logs.  [default: 0]")
@flag("--shard", type=click.IntRange(-1), help="Shard it holds.  [default: -1, not sharded]")
@flag("--stateful", is_flag=True, default=None, help="Refuse to start unless the flow has the executor as stateful.")
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
@logging_flags
@common
@click.pass_obj
def worker(state: State, /, env: tuple[tuple[str, str], ...], extra_search_paths: tuple[str, ...], **flags: Any) -> int:
    """Run one replica of an executor until Ctrl-C."""
    os.environ.update(env)
    from streamflow.workers import service  # after `env`: numpy reads OMP_NUM_THREADS and the like when it is loaded

    start_logging(state, own_logging(flags))
    logs.rename(str(flags["name"] or "worker"))
    return service.run(WorkerSettings(**given(flags)), report=say, extra_search_paths=extra_search_paths)
