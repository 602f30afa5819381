"""`streamflow export`: a flow or deployment file in other forms."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from streamflow.config.load import jtype_of, read_source
from streamflow.config.schema import config_schema
from streamflow.deployment import Deployment
from streamflow.flow import Flow

from .group import Group
from .options import common

PROTOS = ("streamflow.proto", "jina.proto", "docarray.proto")
FILE = click.Path(dir_okay=False, writable=True)


@click.group(cls=Group, aliases={"compose": "docker-compose"})
def export() -> None:
    """Write a flow or deployment file in other forms."""


@export.command(short_help="JSON schema of the YAML files.")
@click.argument("file", type=FILE, default="-")
@common
def schema(file: str) -> int:
    """Write the JSON schema of flow, deployment and executor files, for completion and checks in editors. FILE: default stdout.

    In VS Code (YAML extension): "yaml.schemas": {"./streamflow.schema.json": ["*flow*.yml"]}.
    """
    with click.open_file(file, "w", encoding="utf-8") as target:
        target.write(json.dumps(config_schema(), indent=2) + "\n")
    return 0


@export.command(short_help="Draw a flow.")
@click.argument("flow")
@click.argument("out", type=FILE, metavar="OUT.svg|mmd|md|png")
@click.option("--vertical-layout", is_flag=True, help="From top to bottom instead of from left to right.")
@common
def flowchart(flow: str, out: str, vertical_layout: bool) -> int:
    """Draw the executors of a flow file and their order: SVG, Mermaid text (.mmd, .md), or PNG."""
    _load(flow).plot(out, vertical_layout=vertical_layout)
    return 0


@export.command("docker-compose", short_help="Services of a Compose file.")
@click.argument("flow")
@click.argument("out", type=FILE, default="docker-compose.yml")
@click.option("--network-name", "--network_name", default="", metavar="NAME", help="Name of the network.")
@common
def docker_compose(flow: str, out: str, network_name: str) -> int:
    """Write a Compose file: broker, gateway, and the services of each executor. OUT: default docker-compose.yml."""
    _load(flow).to_docker_compose_yaml(out, network_name)
    return 0


@export.command(short_help="gRPC interfaces, for clients in other languages.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@common
def proto(folder: Path) -> int:
    """Write the .proto files of the gateway's gRPC services: streamflow.proto, and jina.proto with docarray.proto."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROTOS:
        (folder / name).write_text(files("streamflow.gateway.proto").joinpath(name).read_text("utf-8"), "utf-8")
    return 0


def _load(uses: str) -> Any:
    return (Deployment if jtype_of(read_source(uses)) == "Deployment" else Flow).load_config(uses)
