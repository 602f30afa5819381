"""`streamflow hello`: demonstrations that need nothing but the package."""

from __future__ import annotations

import click

from .group import Group, Lazy
from .options import State, common, start_logging

DEMOS = {
    "digits": Lazy("streamflow.hello.digits:command", "Find handwritten digits that look alike."),
    "multimodal": Lazy("streamflow.hello.multimodal:command", "Find pictures by picture, by caption, or by both."),
}


@click.group(cls=Group, lazy=DEMOS, invoke_without_command=True)
@common
@click.pass_context
def hello(ctx: click.Context) -> int:
    """See a flow at work: without a name the first of these."""
    start_logging(ctx.ensure_object(State))
    if ctx.invoked_subcommand is None:
        return int(ctx.invoke(DEMOS["digits"].load()) or 0)
    return 0
