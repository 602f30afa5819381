"""`streamflow ping`: a readiness probe for people, compose and Kubernetes."""

from __future__ import annotations

import time
from urllib.parse import SplitResult

import click

from streamflow import probes
from streamflow.broker.errors import InvalidInput, StreamflowError
from streamflow.broker.exit_codes import FAILED, OK

from .options import common, flag

TARGETS = ("flow", "gateway", "executor", "deployment")
PAUSE_S = 1.0


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[flow|gateway|executor|deployment] URL")
@flag("--attempts", type=click.IntRange(1), default=3, show_default=True, env="STREAMFLOW_PING_ATTEMPTS", help="Rounds, one a second.")
@flag("--min-successful-attempts", "enough", type=click.IntRange(1), default=1, show_default=True, help="Rounds that must succeed.")
@flag(
    "--timeout", type=click.IntRange(1), default=3000, show_default=True, env="STREAMFLOW_PING_TIMEOUT", help="Milliseconds of one round."
)
@common
def ping(words: tuple[str, ...], attempts: int, enough: int, timeout: int) -> int:
    """Ask whether a flow is ready; exit code 1 when it is not.

    URL: grpc://, http:// or ws:// with host:port for a gateway (grpc when there is no scheme), nats://host:port for a broker,
    nats://host:port/FLOW[/EXECUTOR] for the workers of a flow.
    """
    target, url = _split(words)
    parts = probes.parse(url)
    latencies = []
    for number in range(attempts):
        started = time.monotonic()
        click.echo(f"ping {url} at {number} round...")
        failure = _ask(target, parts, timeout / 1000)
        seconds = time.monotonic() - started
        if failure is None:
            latencies.append(seconds)
        else:
            click.secho(f"not responding, retry ({number + 1}/{attempts}) in 1s: {failure}", fg="yellow", err=True)
        click.echo(f"ping {url} at {number} round takes {seconds:.0f} seconds ({seconds:.2f}s)")
        if number + 1 < attempts:
            time.sleep(max(0.0, PAUSE_S - seconds))
    return _conclude(latencies, attempts, enough)


def _split(words: tuple[str, ...]) -> tuple[str, str]:
    """Target (default: flow) and URL, in either order. Raises a usage error."""
    if len(words) == 1:
        return "flow", words[0]
    targets = [word for word in words if word in TARGETS]
    urls = [word for word in words if word not in TARGETS]
    if len(targets) != 1 or len(urls) != 1:
        raise click.UsageError(f"ping takes one of {', '.join(TARGETS)} and a URL")
    return targets[0], urls[0]


def _ask(target: str, parts: SplitResult, timeout_s: float) -> StreamflowError | None:
    try:
        probes.probe(target, parts, timeout_s)
    except InvalidInput:
        raise
    except StreamflowError as error:
        return error
    return None


def _conclude(latencies: list[float], attempts: int, enough: int) -> int:
    lost = attempts - len(latencies)
    if lost:
        click.secho(f"message lost {100 * lost // attempts}% ({lost}/{attempts})", fg="yellow", err=True)
    if latencies:
        click.echo(f"avg. latency: {1000 * sum(latencies) / len(latencies):.0f} ms")
    if len(latencies) < enough:
        return FAILED
    click.secho(f"readiness check succeeded {len(latencies)} times!!!", fg="green")
    return OK
