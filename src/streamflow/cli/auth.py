"""`streamflow auth`: keys and permissions for the broker, tokens for the gateway."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import click

from streamflow.broker import accounts
from streamflow.broker.exit_codes import OK
from streamflow.broker.flow import Graph
from streamflow.broker.permissions import Role
from streamflow.config.load import jtype_of, load_deployment, load_flow, read_source

from .group import Group
from .options import State, common, flag, start_logging

NEXT = """\
{count} keys for {tenant!r} in {folder}: give each process its own file, and nobody another's.
  Broker    streamflow broker --auth {out}        (or in your own nats-server configuration: include "{out}/{auth}")
  Gateway   STREAMFLOW_BROKER_CREDENTIALS={folder}/<flow>/gateway.nk
  Worker    STREAMFLOW_BROKER_CREDENTIALS={folder}/<flow>/worker-<executor>.nk
  All here  STREAMFLOW_BROKER_CREDENTIALS={folder} streamflow flow ...      (each process picks its own)
After the flow has changed: run this again, keys stay; then make the broker read it (nats-server --signal reload)."""


@click.group(cls=Group)
def auth() -> None:
    """Keys and permissions for the broker, tokens for the gateway."""


@auth.command(short_help="Write keys, and a broker configuration.")
@flag("--flow", "flows", multiple=True, required=True, metavar="FILE", env="STREAMFLOW_AUTH_FLOW", help="Flow or deployment file; several.")
@flag("--out", type=click.Path(path_type=Path, file_okay=False), required=True, env="STREAMFLOW_AUTH_OUT", help="Folder to write to.")
@flag("--tenant", default="default", show_default=True, env="STREAMFLOW_AUTH_TENANT", help="Account on the broker: its own world.")
@flag("--role", "roles", multiple=True, type=click.Choice([str(each) for each in Role]), env="STREAMFLOW_AUTH_ROLE", help="Only these.")
@flag("--renew", is_flag=True, env="STREAMFLOW_AUTH_RENEW", help="New keys in place of those that are there.")
@common
@click.pass_obj
def generate(state: State, flows: tuple[str, ...], out: Path, tenant: str, roles: tuple[str, ...], renew: bool) -> int:
    """Write one key per role and executor, and a broker configuration that lets each do its work and nothing else."""
    start_logging(state)
    chosen = [Role(role) for role in roles] or list(Role)
    users = accounts.write(out, tenant, [_graph_of(file) for file in flows], roles=chosen, renew=renew)
    for user in users:
        click.echo(f"  {user.name}")
    click.echo(NEXT.format(count=len(users), tenant=tenant, folder=out / tenant, out=out, auth=accounts.AUTH_FILE))
    return OK


@auth.command(short_help="Make a bearer token for the gateway.")
@flag("--name", required=True, env="STREAMFLOW_AUTH_NAME", help="Whose it is; for logs and limits.")
@flag("--tenant", default="", env="STREAMFLOW_AUTH_TENANT", help="Tenant, where the gateway serves several.")
@common
@click.pass_obj
def token(state: State, name: str, tenant: str) -> int:
    """Make a bearer token, and the lines of the gateway's `auth_file` that let it in."""
    start_logging(state)
    made = secrets.token_urlsafe(32)
    click.echo(f"Authorization: Bearer {made}", err=True)
    click.echo("The token is shown once. In the auth_file, which needs no secrets:", err=True)
    click.echo(f"tokens:\n  - name: {name}\n    sha256: {hashlib.sha256(made.encode()).hexdigest()}")
    if tenant:
        click.echo(f"    tenant: {tenant}")
    return OK


def _graph_of(file: str) -> Graph:
    load = load_deployment if jtype_of(read_source(file)) == "Deployment" else load_flow
    return load(file).graph()
