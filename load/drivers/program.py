"""Run a load generator to its end and read the figures it prints."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence

SLACK_S = 90.0


class DriverFailed(RuntimeError):
    """The load generator ended with an error or without figures."""


def run_program(argv: Sequence[str], env: Mapping[str, str], seconds: float) -> dict[str, float]:
    """The figures of the last output line. The program gets `seconds` and some slack, then it is killed."""
    try:
        done = subprocess.run(
            list(argv), env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + SLACK_S
        )
    except subprocess.TimeoutExpired as error:
        raise DriverFailed(f"{argv[0]} did not end within {error.timeout:.0f} s") from error
    if done.returncode:
        raise DriverFailed(f"{argv[0]} ended with {done.returncode}: {_tail(done.stderr or done.stdout)}")
    return _figures(argv[0], done.stdout)


def _figures(name: str, output: str) -> dict[str, float]:
    lines = [line for line in output.splitlines() if line.startswith("{")]
    try:
        return dict(json.loads(lines[-1]))
    except (IndexError, ValueError) as error:
        raise DriverFailed(f"{name} printed no figures: {_tail(output)}") from error


def _tail(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-3:])[-600:]
