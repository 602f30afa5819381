"""`streamflow flow` and `streamflow deployment`: a whole flow on this machine, under one supervisor."""

from __future__ import annotations

from typing import Any

import click

from streamflow._version import __version__
from streamflow.banner import Board
from streamflow.deployment import Deployment
from streamflow.flow import Flow
from streamflow.plan import prepare
from streamflow.sealing import seal
from streamflow.supervisor import Supervisor
from streamflow.watch import Watch

from .console import Console
from .options import SECURITY, State, broker_url, common, flag, gateway_flags, given, logging_flags, start_logging, uses

_GATEWAY = ("host", "port", "protocol", "timeout_send", "prefetch", "cors", *SECURITY)


def _flow_flags(function: Any) -> Any:
    for decorate in reversed(
        (
            flag("--name", metavar="NAME", env="STREAMFLOW_FLOW", help="Name on the broker, over that of the file."),
            broker_url,
            flag("--store", type=click.Path(file_okay=False, resolve_path=True), help="Folder in which the own broker keeps its data."),
            flag("--workspace", metavar="DIR", help="Folder for the executors' own files."),
            flag("--reload", is_flag=True, default=None, help="Follow changes of the file and of the executors' sources."),
            flag("--timeout-ready", type=int, metavar="MS", help="Milliseconds an executor may take to load; -1 = for ever."),
            gateway_flags,
            logging_flags,
            common,
        )
    ):
        function = decorate(function)
    return function


@click.command()
@uses("Flow file.", required=True)
@_flow_flags
@click.pass_obj
def flow(state: State, /, uses: str, **flags: Any) -> int:
    """Serve a flow: broker (unless --broker names one), gateway and all executors, until Ctrl-C."""
    return _serve("Flow", Flow.load_config, uses, flags, state)


@click.command()
@uses("Deployment file.", required=True)
@flag("--replicas", type=click.IntRange(1), help="Processes that share the work.")
@flag("--shards", type=click.IntRange(1), help="Parts of the data, each with its replicas.")
@flag("--stateful", is_flag=True, default=None, help="Every replica applies all requests of @write endpoints, in one order.")
@_flow_flags
@click.pass_obj
def deployment(state: State, /, uses: str, **flags: Any) -> int:
    """Serve one executor behind a gateway, until Ctrl-C."""
    return _serve("Deployment", Deployment.load_config, uses, flags, state)


def _serve(kind: str, load: Any, uses: str, flags: dict[str, Any], state: State) -> int:
    start_logging(state)
    spec = spec_of(load, uses, flags)
    start_logging(state, spec.options)
    board = Board(kind, spec.name, __version__, store=str(spec.store or ""))
    return Supervisor(prepare(seal(spec)), Console(board, verbose=state.verbose), Watch()).run()


def spec_of(load: Any, uses: str, flags: dict[str, Any]) -> Any:
    """The `FlowSpec` of a file with the flags put over it. Raises `FlowError`."""
    flags = given(flags)
    broker = given({"url": flags.pop("broker_url", None), "store": flags.pop("store", None)})
    gateway = {name: list(value) if isinstance(value, tuple) else value for name, value in flags.items() if name in _GATEWAY}
    others = {name: value for name, value in flags.items() if name not in _GATEWAY}
    served = load(uses, **others, **({"broker": broker} if broker else {}))
    if gateway:
        served.config_gateway(**gateway)
    return served.spec()
