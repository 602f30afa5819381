"""`streamflow new`: a project to start from."""

from __future__ import annotations

from pathlib import Path

import click

from streamflow import templates

from .options import common, flag


@click.command()
@click.argument("folder", metavar="NAME", type=click.Path(path_type=Path))
@flag(
    "--template",
    "--type",
    env="STREAMFLOW_TEMPLATE",
    default="flow",
    show_default=True,
    metavar="|".join(templates.TEMPLATES),
    help="Which one.",
)
@common
def new(folder: Path, template: str) -> int:
    """Write a small project into the new folder NAME: executor, YAML, client and a test that passes."""
    written = templates.create(folder, template)
    chosen = templates.TEMPLATES[templates.find(template)]
    click.echo(f"{folder}: {chosen.about}")
    for path in written:
        click.echo(f"  {path}")
    click.echo(f"\nNext:\n  cd {folder}\n  {chosen.serve}\n  python client.py   # in a second terminal\n  pytest")
    return 0
