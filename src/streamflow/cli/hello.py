"""`streamflow hello`: demonstrations that need nothing but the package."""

from __future__ import annotations

from importlib import import_module

import click

from .options import State, common, start_logging

DEMOS = {"digits": "streamflow.hello.digits"}


@click.command(
    short_help="See a flow at work.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
)
@click.argument("demo", type=click.Choice(sorted(DEMOS)), default="digits")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@common
@click.pass_obj
def hello(state: State, demo: str, arguments: tuple[str, ...]) -> int:
    """See a flow at work: digits finds handwritten digits that look alike, with a page for the browser."""
    start_logging(state)
    return int(import_module(DEMOS[demo]).main(list(arguments)) or 0)
