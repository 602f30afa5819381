"""Flags that several commands share, and the types of their values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from streamflow import logs
from streamflow.broker.redact import shown_url

PROTOCOLS = ("grpc", "http", "websocket")
SECURITY = ("auth_file", "allow_anonymous", "ssl_certfile", "ssl_keyfile", "ssl_ca")
DURABILITIES = ("default", "fsync", "memory")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class State:
    """What holds for the whole call."""

    verbose: bool = False
    quiet: bool = False


class JsonObject(click.ParamType[dict[str, Any]]):
    """A JSON object, e.g. '{"model": "tiny"}'."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, dict):
            return value
        try:
            found = json.loads(value)
        except ValueError as error:
            self.fail(f"not JSON: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail(f"a JSON object is needed, not {value!r}", param, ctx)
        return found


class Assignment(click.ParamType[tuple[str, str]]):
    """KEY=VALUE."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        key, equals, text = value.partition("=")
        if not key or not equals:
            self.fail(f"KEY=VALUE is needed, not {value!r}", param, ctx)
        return key, text


def flag(name: str, *more: str, env: str | None = None, **options: Any) -> Callable[[F], F]:
    """A `click.option` that may also be given as `STREAMFLOW_<NAME>`."""
    variable = env or "STREAMFLOW_" + name.lstrip("-").replace("-", "_").upper()
    return click.option(name, *more, envvar=variable, show_envvar=True, **options)


def common(function: F) -> F:
    """`-v` and `--quiet`, before or behind the command's name."""
    quiet = flag("--quiet", is_flag=True, expose_value=False, callback=_quiet, is_eager=True, help="Log errors only.")
    verbose = flag(
        "-v",
        "--verbose",
        env="STREAMFLOW_VERBOSE",
        is_flag=True,
        expose_value=False,
        callback=_verbose,
        is_eager=True,
        help="Debug log, tracebacks.",
    )
    return verbose(quiet(function))


def uses(text: str, *, required: bool) -> Callable[[F], F]:
    return flag("--uses", metavar="FILE", required=required, help=text)


def _no_secret(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Every user of a machine can read the command lines of all."""
    typed = ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    if value and typed and shown_url(value) != value:
        raise click.UsageError(
            "--broker: a user or password does not belong on the command line, where everybody can read it: "
            "set STREAMFLOW_BROKER_URL, or name a key file with STREAMFLOW_BROKER_CREDENTIALS"
        )
    return value


broker_url = flag(
    "--broker",
    "broker_url",
    callback=_no_secret,
    env="STREAMFLOW_BROKER_URL",
    metavar="URL",
    help="NATS servers, e.g. nats://10.0.0.5:4222; several with commas.",
)


def gateway_flags(function: Any) -> Any:
    """Where and how a gateway listens."""
    for decorate in reversed(
        (
            flag("--protocol", type=click.Choice(PROTOCOLS), multiple=True, help="May be given several times, each with its --port."),
            flag("--port", type=click.IntRange(0, 65535), multiple=True, help="One per protocol; a free one when not given."),
            flag("--host", help="Address to listen on."),
            flag("--timeout-send", type=float, metavar="MS", help="Milliseconds a request may take."),
            flag("--prefetch", type=click.IntRange(0), help="Requests in flight per client stream; 0 = no limit."),
            flag("--admin-port", type=click.IntRange(0, 65535), help="Health, readiness and status on this port, and on no other."),
            flag("--cors", is_flag=True, default=None, help="Let web pages of other origins call."),
            flag("--auth-file", type=click.Path(dir_okay=False), help="Who may call: tokens, JWT issuers, certificates, limits."),
            flag("--allow-anonymous", is_flag=True, default=None, help="Let callers of other machines in without asking who they are."),
            flag("--ssl-certfile", type=click.Path(dir_okay=False), help="Certificate chain of the gateway (TLS)."),
            flag("--ssl-keyfile", type=click.Path(dir_okay=False), help="Its private key."),
            flag("--ssl-ca", type=click.Path(dir_okay=False), help="Clients must show a certificate of this authority."),
        )
    ):
        function = decorate(function)
    return function


def _verbose(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    state = ctx.ensure_object(State)
    state.verbose = state.verbose or value


def _quiet(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    state = ctx.ensure_object(State)
    state.quiet = state.quiet or value


def logging_flags(function: Any) -> Any:
    """What a flow's processes log, and where; each is also a key of flow files."""
    for decorate in reversed(
        (
            flag("--log-config", type=click.Path(resolve_path=True), metavar="FILE", help="Logging file: handlers, level, configs."),
            flag("--log-level", type=click.Choice(logs.LEVELS, case_sensitive=False), help="From which level."),
            flag("--quiet-error", is_flag=True, default=None, help="Exceptions without their tracebacks."),
            flag("--suppress-root-logging", is_flag=True, default=None, help="Nothing of other libraries."),
        )
    ):
        function = decorate(function)
    return function


def own_logging(flags: dict[str, Any]) -> dict[str, Any]:
    """The `logging_flags` that were given, taken out of `flags`."""
    return given({name: flags.pop(name) for name in logs.OPTIONS if name in flags})


def start_logging(state: State, options: Mapping[str, Any] | None = None) -> None:
    """Log as the flags say, else as the `logs.OPTIONS` of a flow do."""
    logs.setup(logs.choose(verbose=state.verbose, quiet=state.quiet, options=options))


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given: the others keep the defaults of their settings."""
    return {key: value for key, value in values.items() if value is not None and value not in ((), {})}
