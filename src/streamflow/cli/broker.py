"""`streamflow broker`: the embedded nats-server on its own, for a laptop or a single machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from streamflow.broker.accounts import AUTH_FILE
from streamflow.broker.errors import RuntimeFailToStart
from streamflow.broker.exit_codes import INTERRUPTED, OK
from streamflow.broker.server import EmbeddedBroker

from .options import DURABILITIES, State, common, flag, start_logging

LOOK_S = 2.0
_ENDS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


@click.command()
@flag("--port", type=click.IntRange(0, 65535), default=4222, show_default=True, env="STREAMFLOW_BROKER_PORT", help="0 = any free one.")
@flag("--host", default="127.0.0.1", show_default=True, env="STREAMFLOW_BROKER_HOST", help="Address to listen on.")
@flag("--store", type=click.Path(path_type=Path, file_okay=False), help="Folder of the data; without it they go with the broker.")
@flag(
    "--auth", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIR", env="STREAMFLOW_BROKER_AUTH",
    help="Admit only the users in this folder, which `streamflow auth generate` wrote.",
)  # fmt: skip
@flag("--durability", type=click.Choice(DURABILITIES), default="default", help="fsync: acknowledge what is on the disk, not before.")
@common
@click.pass_obj
def broker(state: State, port: int, host: str, store: Path | None, auth: Path | None, durability: str) -> int:
    """Run a NATS server with JetStream until Ctrl-C."""
    start_logging(state)
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    server = EmbeddedBroker(store, port, host, auth=auth / AUTH_FILE if auth else None, durability=durability)
    server.start()
    try:
        click.echo(
            f"Broker is ready: {server.url}\n  Data  {store or 'temporary, deleted at the end (--store DIR keeps it)'}\n  Stop  Ctrl-C"
        )
        return _until_signal(server)
    finally:
        server.stop()


def _until_signal(server: EmbeddedBroker) -> int:
    """Wait for a signal to end, or for the server's own end. Raises `RuntimeFailToStart` in that case."""
    while (found := signal.sigtimedwait(_ENDS, LOOK_S)) is None or found.si_signo == signal.SIGCHLD:
        if found is None and server.has_lost_its_disk():
            click.echo("The disk was full, and the broker stores nothing until it is started again: doing so.", err=True)
            server.kill()
            server.start()
        elif found is not None and _has_ended(server.pid):
            raise RuntimeFailToStart("the nats-server ended by itself; its log is nats-server.log in the data folder")
    return INTERRUPTED if found.si_signo == signal.SIGINT else OK


def _has_ended(pid: int) -> bool:
    """Whether child `pid` has; the SIGCHLD may be of one that was ended here."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True
