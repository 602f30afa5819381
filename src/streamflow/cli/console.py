"""Events of a flow in this process: a banner and single lines for people, JSON log lines for machines."""

from __future__ import annotations

import logging
from typing import Any

import click

from streamflow import logs
from streamflow.banner import Board, parse_addresses
from streamflow.broker.redact import shown_url
from streamflow.events import Event, Kind

log = logging.getLogger("streamflow")


def say(doing: str, message: str = "", /, **facts: Any) -> None:
    """The report of a single service for people; with ready, a gateway's addresses."""
    click.echo(f"{doing} {message}".strip(), err=True)
    for protocol, (host, port) in facts.get("addresses", {}).items():
        click.echo(f"  {protocol:<9} {host}:{port}", err=True)


class Console:
    """An `Emit` for a `Supervisor`; keeps what the banner needs until the flow is ready."""

    def __init__(self, board: Board, *, verbose: bool) -> None:
        self._board = board
        self._verbose = verbose
        self._json = logs.current().json

    def __call__(self, event: Event) -> None:
        facts: dict[str, Any] = event.facts
        if event.kind is Kind.BROKER:
            self._board.broker_url, self._board.embedded = facts["url"], facts["embedded"]
        elif event.kind is Kind.GATEWAY:
            self._board.addresses |= parse_addresses(facts["addresses"])
            self._board.closed |= facts["closed"]
        elif event.kind is Kind.READY:
            self._ready(facts["seconds"])
        elif event.kind in (Kind.WAITING, Kind.RESTART, Kind.RELOAD, Kind.STOPPING):
            self._line(event)
        elif event.kind is Kind.FAILED:
            self._error(event)

    def _ready(self, seconds: float) -> None:
        self._board.seconds = seconds
        if self._json:
            facts = {"addresses": self._board.addresses, "broker": shown_url(self._board.broker_url), "seconds": round(seconds, 3)}
            log.info("ready to serve", extra=facts)
            return
        title, *rows = self._board.lines()
        click.secho(title, fg="green", bold=True)
        for row in rows:
            click.echo(row)

    def _line(self, event: Event) -> None:
        if self._json:
            level = logging.WARNING if event.kind is Kind.RESTART else logging.INFO
            log.log(level, "%s", event.text, extra={"event": event.kind.value})
        else:
            click.secho(event.text, fg="yellow" if event.kind is Kind.RESTART else None, dim=event.kind is not Kind.RESTART, err=True)

    def _error(self, event: Event) -> None:
        detail = str(event.facts.get("detail", ""))
        if detail and self._verbose:
            click.echo(detail, err=True)
        hint = "\n(-v shows the traceback)" if detail and not self._verbose else ""
        click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(event.text + hint, err=True)
