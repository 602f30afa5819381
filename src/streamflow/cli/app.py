"""The group of all commands, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import click

from streamflow._version import __version__
from streamflow.broker.errors import Code, RuntimeFailToStart, StreamflowError
from streamflow.broker.exit_codes import FAILED, INTERRUPTED, OK, TEXTS, exit_code

from . import broker, export, flow, gateway, hello, ping, worker
from .group import Group
from .options import State, common
from .version import full_version

EPILOG = (
    "\b\nExit codes:\n"
    + "\n".join(f"  {code:<4} {text}" for code, text in TEXTS.items())
    + "\n\nEvery flag is also an environment variable."
)


@click.group(
    cls=Group,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    aliases={"executor": "worker", "up": "flow"},
)
@click.version_option(__version__, "--version", prog_name="streamflow")
@click.option(
    "-vf", "--version-full", is_flag=True, is_eager=True, expose_value=False, callback=full_version, help="Versions of all components."
)
@common
def cli() -> None:
    """Serve ML pipelines on a durable queue."""


for command in (flow.flow, flow.deployment, gateway.gateway, worker.worker, broker.broker, ping.ping, export.export, hello.hello):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never raises."""
    state = State()
    try:
        code = cli.main(args=None if arguments is None else list(arguments), prog_name="streamflow", standalone_mode=False, obj=state)
        return code if isinstance(code, int) else OK
    except click.exceptions.Abort:
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except StreamflowError as error:
        return tell(error, state)
    except Exception as error:
        tell(error, state)
        return FAILED


def tell(error: Exception, state: State) -> int:
    """Print what went wrong, with the traceback only for `-v`. Returns the exit code."""
    text = str(error) if isinstance(error, StreamflowError) else f"{type(error).__name__}: {error}"
    detail = getattr(error, "detail", "")
    hint = "" if state.verbose or not (detail or not isinstance(error, StreamflowError)) else "\n(-v shows the traceback)"
    if state.verbose:
        click.echo(detail or "".join(traceback.format_exception(error)), err=True)
    click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(text + hint, err=True)
    cause: Code = getattr(error, "cause", Code.INTERNAL) if isinstance(error, RuntimeFailToStart) else getattr(error, "code", Code.INTERNAL)
    return exit_code(cause)


if __name__ == "__main__":
    sys.exit(main())
