"""`streamflow queue`: what waits for which executor, and the operator's switches: pause, resume, purge."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import click

from streamflow.broker.bus import Bus
from streamflow.broker.errors import InvalidInput
from streamflow.broker.exit_codes import OK
from streamflow.broker.purge import purge as empty
from streamflow.broker.queues import FOR_EVER_S, QueueInfo, list_queues, select, with_workers
from streamflow.broker.queues import pause as pause_queue
from streamflow.broker.queues import resume as resume_queue

from .operating import operate
from .options import broker_url, common, flag

WATCH_S = 1.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HEADER = ("FLOW", "EXECUTOR", "LANE", "LAG", "PENDING", "RUNNING", "REDELIVERED", "OLDEST", "BYTES", "WORKERS", "STATE")

place = click.argument("target", metavar="FLOW/EXECUTOR")
lane = flag("--lane", default="", env="STREAMFLOW_QUEUE_LANE", help="One queue of the executor only: now, bulk, shard-0 ...")
as_json = flag("--json", "as_json", env="STREAMFLOW_QUEUE_JSON", is_flag=True, help="One JSON object per queue.")


@click.group()
def queue() -> None:
    """See the queues of all flows on a broker; pause, resume or purge those of an executor."""


@queue.command()
@click.argument("target", default="", metavar="[FLOW[/EXECUTOR]]")
@lane
@as_json
@flag("--watch", env="STREAMFLOW_QUEUE_WATCH", is_flag=True, help="Again every second, until Ctrl-C.")
@broker_url
@common
def ls(target: str, lane: str, as_json: bool, watch: bool, broker_url: str | None) -> int:
    """List queues. LAG = PENDING + RUNNING is what an autoscaler should follow."""

    async def show(bus: Bus) -> None:
        while True:
            found = await with_workers(bus, _select(await list_queues(bus), target, lane))
            if watch and not as_json:
                click.clear()
            _print(found, as_json)
            if not watch:
                return
            await asyncio.sleep(WATCH_S)

    return _run(broker_url, target, show)


@queue.command()
@place
@lane
@as_json
@broker_url
@common
def info(target: str, lane: str, as_json: bool, broker_url: str | None) -> int:
    """Show everything about the queues of one executor."""

    async def show(bus: Bus) -> None:
        for one in await with_workers(bus, _select(await list_queues(bus), target, lane)):
            click.echo(json.dumps(one.to_dict()) if as_json else _facts(one))

    return _run(broker_url, target, show)


@queue.command(short_help="Hand out nothing more; what comes waits.")
@place
@lane
@flag(
    "--for",
    "period",
    env="STREAMFLOW_QUEUE_FOR",
    metavar="TIME",
    help="Resume by itself after 90s, 10m, 2h, 1d; without it: until `resume`.",
)
@broker_url
@common
def pause(target: str, lane: str, period: str | None, broker_url: str | None) -> int:
    """Hand out nothing more; what runs goes on, what comes waits (and is refused when the queue is full)."""
    seconds = FOR_EVER_S if period is None else _seconds(period)
    return _run(broker_url, target, _each(target, lane, "paused", lambda bus, one: pause_queue(bus, one, seconds)))


@queue.command()
@place
@lane
@broker_url
@common
def resume(target: str, lane: str, broker_url: str | None) -> int:
    """Undo `pause`."""
    return _run(broker_url, target, _each(target, lane, "resumed", resume_queue))


@queue.command()
@place
@lane
@click.option("--yes", is_flag=True, help="Do not ask.")
@broker_url
@common
def purge(target: str, lane: str, yes: bool, broker_url: str | None) -> int:
    """Remove what waits; its clients are told CANCELLED."""

    async def remove(bus: Bus) -> None:
        found = [one for one in _select(await list_queues(bus), target, lane) if one.lag]
        requests = sum(one.lag for one in found)
        if not found:
            click.echo(f"{target}: nothing waits")
            return
        if not yes:
            click.confirm(f"Remove {requests} requests of {target}, {', '.join(one.lane for one in found)}, and cancel them?", abort=True)
        for one in found:
            click.echo(f"{target} {one.lane}: removed {await empty(bus, one)}")

    return _run(broker_url, target, remove)


def _run(url: str | None, target: str, do: Callable[[Bus], Awaitable[None]]) -> int:
    operate(url, target.partition("/")[0], "queue", do)
    return OK


def _each(target: str, lane: str, done: str, act: Callable[[Bus, QueueInfo], Awaitable[None]]) -> Callable[[Bus], Awaitable[None]]:
    async def act_on_all(bus: Bus) -> None:
        for one in _select(await list_queues(bus), target, lane):
            await act(bus, one)
            click.echo(f"{target} {one.lane}: {done}")

    return act_on_all


def _select(queues: list[QueueInfo], target: str, lane: str) -> list[QueueInfo]:
    flow, _, executor = target.partition("/")
    return select(queues, flow, executor, lane) if flow else queues


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not found:
        raise InvalidInput(f"--for {text!r}: a number and s, m, h or d is needed, e.g. 10m")
    return float(found[1]) * _UNITS[found[2]]


def _print(queues: list[QueueInfo], as_json: bool) -> None:
    if as_json:
        for one in queues:
            click.echo(json.dumps(one.to_dict()))
        return
    rows = [_HEADER, *(_row(one) for one in queues)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    for number, row in enumerate(rows):
        cells = (text.ljust(width) if at < 3 else text.rjust(width) for at, (text, width) in enumerate(zip(row, widths, strict=True)))
        click.secho("  ".join(cells).rstrip(), bold=number == 0)
    if not queues:
        click.echo("There is no flow on this broker.")


def _row(one: QueueInfo) -> tuple[str, ...]:
    numbers = (one.lag, one.pending, one.ack_pending, one.redelivered)
    oldest = "-" if one.oldest_s is None else f"{one.oldest_s:.1f} s"
    return (one.flow, one.executor, one.lane, *map(str, numbers), oldest, _size(one.bytes), str(one.workers), _state(one))


def _state(one: QueueInfo) -> str:
    if not one.paused_s:
        return "ok" if one.workers or one.pulls or not one.pending else "no worker"
    return "paused" if one.paused_s > FOR_EVER_S / 2 else f"paused {one.paused_s:.0f} s"


def _facts(one: QueueInfo) -> str:
    facts: dict[str, Any] = {**one.to_dict(), "state": _state(one)}
    facts["max_bytes"] = "no limit" if one.max_bytes < 0 else _size(one.max_bytes)
    facts["bytes"] = _size(one.bytes)
    return "\n".join(f"{name:<12} {value}" for name, value in facts.items() if name not in ("paused", "paused_s")) + "\n"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
