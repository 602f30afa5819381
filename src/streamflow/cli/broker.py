"""`streamflow broker`: the embedded nats-server on its own, for a laptop or a single machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from streamflow.broker.errors import RuntimeFailToStart
from streamflow.broker.exit_codes import INTERRUPTED, OK

from .options import State, common, flag, start_logging

_ENDS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


@click.command(short_help="Run a NATS server with JetStream.")
@flag("--port", type=click.IntRange(0, 65535), default=4222, show_default=True, env="STREAMFLOW_BROKER_PORT", help="0 = any free one.")
@flag("--host", default="127.0.0.1", show_default=True, env="STREAMFLOW_BROKER_HOST", help="Address to listen on.")
@flag("--store", type=click.Path(path_type=Path, file_okay=False), help="Folder of the data; without it they go with the broker.")
@common
@click.pass_obj
def broker(state: State, port: int, host: str, store: Path | None) -> int:
    """Run a NATS server with JetStream until Ctrl-C."""
    from streamflow.broker.server import EmbeddedBroker  # reads package metadata

    start_logging(state)
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    server = EmbeddedBroker(store, port, host)
    server.start()
    try:
        click.echo(
            f"Broker is ready: {server.url}\n  Data  {store or 'temporary, deleted at the end (--store DIR keeps it)'}\n  Stop  Ctrl-C"
        )
        return _until_signal(server.pid)
    finally:
        server.stop()


def _until_signal(pid: int) -> int:
    """Wait for a signal to end, or for the server's own end. Raises `RuntimeFailToStart` in that case."""
    while (number := signal.sigwait(_ENDS)) == signal.SIGCHLD:
        if os.waitpid(pid, os.WNOHANG)[0]:
            raise RuntimeFailToStart("the nats-server ended by itself; its log is nats-server.log in the data folder")
    return INTERRUPTED if number == signal.SIGINT else OK
