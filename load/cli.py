"""`python -m load list | run | report`."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from . import report as reporting
from .paths import RESULTS
from .profiles import PROFILES
from .results import Result, latest, save
from .runner import Options, run_profile
from .targets import TARGETS

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
CHECK = click.option("--check", is_flag=True, help="Exit with 1 when a required aim is missed.")


@click.group()
def main() -> None:
    """Load profiles: streamflow and its peers side by side, as ratios."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # unwinds, so that every server is stopped


@main.command("list")
def list_profiles() -> None:
    """Name the profiles and targets."""
    rows = [
        (name, ", ".join(profile.targets), ", ".join(case.name for case in profile.cases), profile.about)
        for name, profile in PROFILES.items()
    ]
    click.echo(reporting.table(("profile", "targets", "cases", "what"), rows))
    click.echo(reporting.table(("target", "state"), [(name, target.problem() or "ready") for name, target in TARGETS.items()]))


def _names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if unknown := sorted(set(names) - TARGETS.keys()):
        raise click.BadParameter(f"unknown: {', '.join(unknown)}; known: {', '.join(TARGETS)}")
    return names


@main.command()
@click.argument("profile", type=click.Choice([*PROFILES, "all"]))
@click.option("--rounds", type=click.IntRange(0, 50), default=0, help="Rounds of A B A B; 0 = what the profile asks for.")
@click.option("--seconds", type=click.FloatRange(0.2, 60), default=3.0, show_default=True, help="Length of one measurement.")
@click.option("--targets", default="", callback=_names, help="Names with commas between; default: all of the profile.")
@click.option("--rate", type=click.FloatRange(0, 50_000), default=0.0, help="Arrivals per second for open loops; 0 = the profile's own.")
@AS_JSON
@CHECK
def run(profile: str, rounds: int, seconds: float, targets: tuple[str, ...], rate: float, as_json: bool, check: bool) -> None:
    """Measure one profile, or `all` of them."""
    options = Options(rounds, seconds, targets, rate)
    results = {}
    for name in PROFILES if profile == "all" else (profile,):
        results[name] = run_profile(PROFILES[name], options)
        options.say(f"written: {save(results[name])}")
    _show(results, as_json)
    sys.exit(_exit_code(results, check))


@main.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@AS_JSON
@CHECK
def report(files: tuple[Path, ...], as_json: bool, check: bool) -> None:
    """Print the ratios of these result files, or of the newest one of each profile."""
    results = latest(files or RESULTS.glob("*.json"))
    _show(results, as_json)
    sys.exit(1 if check and reporting.missed(results) else 0)


def _show(results: dict[str, Result], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(reporting.as_json(results), indent=1))
        return
    for result in results.values():
        click.echo(f"{reporting.facts(result)}\n\n{reporting.figures_table(result)}\n")
    click.echo(reporting.aims_table(results))


def _exit_code(results: dict[str, Result], check: bool) -> int:
    unmeasured = any(result.failures for result in results.values())
    return 1 if unmeasured or (check and reporting.missed(results)) else 0
