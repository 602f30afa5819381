"""`streamflow dlq`: the dead letters of a flow: requests that an executor gave up on, and what failed in jobs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import click

from streamflow.broker import bucket, dead_letters
from streamflow.broker.bus import Bus
from streamflow.broker.dead_letters import DeadLetter, Retried
from streamflow.broker.errors import InvalidInput, StreamflowError
from streamflow.broker.exit_codes import FAILED, OK

from .operating import operate
from .options import broker_url, common, flag

_HEADER = ("ID", "EXECUTOR", "REQUEST", "JOB", "ATTEMPTS", "WHEN", "ERROR")
_SHOWN = 60

flow = flag("--flow", default="default", show_default=True, help="The flow whose executor gave up.")
executor = click.option("--executor", default="", help="Only those of this executor.")
job = click.option("--job", default="", help="Only those of this job.")
all_of_them = click.option("--all", "everything", is_flag=True, help="All that the other options leave.")
ids = click.argument("ids", nargs=-1, type=click.IntRange(1), metavar="[ID]...")
as_json = click.option("--json", "as_json", is_flag=True, help="As JSON, one object a line.")


@click.group()
def dlq() -> None:
    """See the dead letters of a flow, put them back into their queues, or remove them."""


@dlq.command()
@flow
@executor
@job
@as_json
@broker_url
@common
def ls(flow: str, executor: str, job: str, as_json: bool, broker_url: str | None) -> int:
    """List dead letters, oldest first."""

    async def show(bus: Bus) -> int:
        if not as_json:
            click.secho(_line(*_HEADER), bold=True)
        async for letter in dead_letters.letters(bus, flow, executor=executor, job=job):
            click.echo(json.dumps(letter.to_dict(), default=str) if as_json else _row(letter))
        if dropped := await dead_letters.dropped(bus, flow):
            click.secho(dropped, fg="yellow", err=True)
        return OK

    return _run(broker_url, flow, show)


@dlq.command()
@click.argument("letter_id", type=click.IntRange(1), metavar="ID")
@flow
@as_json
@broker_url
@common
def show(letter_id: int, flow: str, as_json: bool, broker_url: str | None) -> int:
    """Show one letter: why it was given up, the traceback, the request."""

    async def show(bus: Bus) -> int:
        letter = await dead_letters.find(bus, flow, letter_id)
        facts = letter.to_dict() | {"data": await _documents(bus, letter)}
        click.echo(json.dumps(facts, default=str) if as_json else _facts(facts))
        return OK

    return _run(broker_url, flow, show)


@dlq.command(short_help="Put letters back into their queue.")
@ids
@flow
@executor
@job
@all_of_them
@broker_url
@common
def retry(ids: tuple[int, ...], flow: str, executor: str, job: str, everything: bool, broker_url: str | None) -> int:
    """Put letters back into the queue of their executor, each once; exit code 1 when one could not be."""

    async def put_back(bus: Bus, letter: DeadLetter) -> str:
        return (await dead_letters.retry(bus, letter)).value

    return _each(broker_url, flow, _Chosen(ids, executor, job, everything), put_back, {Retried.QUEUED, Retried.SUCCEEDED})


@dlq.command()
@ids
@flow
@executor
@job
@all_of_them
@click.option("--yes", is_flag=True, help="Do not ask.")
@broker_url
@common
def rm(ids: tuple[int, ...], flow: str, executor: str, job: str, everything: bool, yes: bool, broker_url: str | None) -> int:
    """Remove letters for good."""
    if not ids and not yes:
        click.confirm(f"Remove the dead letters of flow {flow!r} that match?", abort=True)

    async def remove(bus: Bus, letter: DeadLetter) -> str:
        return "removed" if await dead_letters.remove(bus, letter) else Retried.GONE.value

    return _each(broker_url, flow, _Chosen(ids, executor, job, everything), remove, {"removed"})


class _Chosen:
    """The letters that a command is for."""

    def __init__(self, ids: tuple[int, ...], executor: str, job: str, everything: bool) -> None:
        if bool(ids) == bool(executor or job or everything):
            raise InvalidInput("name the letters by their ids, or choose them by --executor, --job or --all")
        self._ids = ids
        self._executor = executor
        self._job = job

    async def letters(self, bus: Bus, flow: str) -> list[DeadLetter]:
        """Those that are there now: what is put back may come again at once."""
        if self._ids:
            return [await dead_letters.find(bus, flow, each) for each in self._ids]
        return [letter async for letter in dead_letters.letters(bus, flow, executor=self._executor, job=self._job)]


def _each(url: str | None, flow: str, chosen: _Chosen, act: Callable[[Bus, DeadLetter], Awaitable[str]], good: set[Any]) -> int:
    async def act_on_all(bus: Bus) -> int:
        failed = 0
        for letter in await chosen.letters(bus, flow):
            try:
                said = await act(bus, letter)
            except InvalidInput as error:
                said = str(error)
            failed += said not in good
            click.echo(f"{letter.id} {letter.executor} {letter.request_id}: {said}")
        return FAILED if failed else OK

    return _run(url, flow, act_on_all)


def _run(url: str | None, flow: str, do: Callable[[Bus], Awaitable[int]]) -> int:
    async def of_flow(bus: Bus) -> int:
        await bucket.require(bus, flow)
        return await do(bus)

    return operate(url, flow, "dlq", of_flow)


async def _documents(bus: Bus, letter: DeadLetter) -> Any:
    """The documents where they can be shown, else why not."""
    try:
        return dead_letters.documents(await dead_letters.whole(bus, letter))
    except (StreamflowError, ValueError) as error:
        return f"not shown: {error}"


def _row(letter: DeadLetter) -> str:
    moment = datetime.fromtimestamp(letter.time).strftime("%Y-%m-%d %H:%M:%S")
    error = letter.status.description.split("\n", 1)[0][:_SHOWN]
    return _line(str(letter.id), letter.executor, letter.request_id, letter.job or "-", str(letter.attempts), moment, error)


def _line(letter: str, executor: str, request: str, job: str, attempts: str, moment: str, error: str) -> str:
    return f"{letter:>6}  {executor:<16}  {request:<24}  {job:<16}  {attempts:>8}  {moment:<19}  {error}".rstrip()


def _facts(facts: dict[str, Any]) -> str:
    traceback = facts.pop("traceback")
    lines = [f"{name:<12}  {value}" for name, value in facts.items() if value not in ("", None)]
    return "\n".join([*lines, traceback]).rstrip()
