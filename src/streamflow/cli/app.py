"""The group of all commands, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import click

from streamflow._version import __version__
from streamflow.broker.errors import Code, RuntimeFailToStart, StreamflowError
from streamflow.broker.exit_codes import FAILED, INTERRUPTED, OK, TEXTS, exit_code

from .group import Group, Lazy
from .options import State, common
from .version import full_version

# A command is its line here and a module of its own, which is imported when the command runs.
COMMANDS = {
    "flow": Lazy("streamflow.cli.flow:flow", "Serve a whole flow on this machine."),
    "deployment": Lazy("streamflow.cli.flow:deployment", "Serve one executor on this machine."),
    "gateway": Lazy("streamflow.cli.gateway:gateway", "Accept requests for a flow."),
    "worker": Lazy("streamflow.cli.worker:worker", "Run one replica of an executor."),
    "broker": Lazy("streamflow.cli.broker:broker", "Run a NATS server with JetStream."),
    "auth": Lazy("streamflow.cli.auth:auth", "Keys, permissions and tokens."),
    "doctor": Lazy("streamflow.cli.doctor:doctor", "Examine a broker, or a file written for Jina."),
    "submit": Lazy("streamflow.cli.submit:submit", "Hand in a file as a job."),
    "job": Lazy("streamflow.cli.job:job", "See, pause, resume or cancel jobs, read results."),
    "replay": Lazy("streamflow.cli.replay:replay", "Run stored requests again."),
    "dlq": Lazy("streamflow.cli.dlq:dlq", "See dead letters, put them back, remove them."),
    "queue": Lazy("streamflow.cli.queue:queue", "See, pause, resume or purge what waits."),
    "ping": Lazy("streamflow.cli.ping:ping", "Ask whether a flow is ready."),
    "export": Lazy("streamflow.cli.export:export", "Write a flow in other forms."),
    "new": Lazy("streamflow.cli.new:new", "Write a project to start from."),
    "hello": Lazy("streamflow.cli.hello:hello", "See a flow at work."),
}
EPILOG = (
    "\b\nExit codes:\n"
    + "\n".join(f"  {code:<4} {text}" for code, text in TEXTS.items())
    + "\n\nEvery flag is also an environment variable."
)


@click.group(
    cls=Group,
    lazy=COMMANDS,
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
        return INTERRUPTED if was_interrupted(error) else tell(error, state)
    except Exception as error:
        if was_interrupted(error):
            return INTERRUPTED
        tell(error, state)
        return FAILED


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is what `error` came of: libraries make errors of their own of it, numpy's import an ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


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
