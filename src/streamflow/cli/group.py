"""A click group that imports a command when it is asked for, knows other names for it, and says what a mistyped one may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem


class Lazy(NamedTuple):
    """A command that is not imported yet: `package.module:name`, and its line in the list of commands."""

    target: str
    short_help: str

    def load(self) -> click.Command:
        module, _, name = self.target.partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command


class Group(click.Group):
    """`lazy`: commands by name. `aliases`: hidden names, e.g. those of Jina's command line."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy] | None = None, aliases: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy or {})
        self._aliases = dict(aliases or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order they were added: the first is the one to begin with."""
        return list(dict.fromkeys([*self._lazy, *self.commands]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = self._aliases.get(cmd_name, cmd_name)
        if name in self._lazy and name not in self.commands:
            self.add_command(self._lazy[name].load(), name)
        return super().get_command(ctx, name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            close = difflib.get_close_matches(args[0], [*known, *self._aliases], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" There are {', '.join(known)}."
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands; click's own would import each for its line."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._lines(ctx).items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        named = [CompletionItem(name, help=line) for name, line in self._lines(ctx).items() if name.startswith(incomplete)]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    def _lines(self, ctx: click.Context) -> dict[str, str]:
        return {
            name: self._lazy[name].short_help if name in self._lazy else self.commands[name].get_short_help_str(80)
            for name in self.list_commands(ctx)
        }
