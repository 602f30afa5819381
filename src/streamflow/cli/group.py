"""A click group that knows other names for its commands and says what a mistyped one may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import click


class Group(click.Group):
    """`aliases` are hidden names, e.g. those of Jina's command line."""

    def __init__(self, *args: Any, aliases: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._aliases = dict(aliases or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order they were added: the first is the one to begin with."""
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, self._aliases.get(cmd_name, cmd_name))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            close = difflib.get_close_matches(args[0], [*self.commands, *self._aliases], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" There are {', '.join(self.commands)}."
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)
