"""Log lines of every process: a rich console in a terminal, one JSON object a line otherwise."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import dataclass

LEVELS = ("debug", "info", "warning", "error")
_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_process_name = "streamflow"


@dataclass(frozen=True, slots=True)
class Setup:
    """How to log. `json` False = for people."""

    level: str = "info"
    json: bool = False


_current = Setup()


def choose(*, verbose: bool = False, quiet: bool = False) -> Setup:
    """The setup of this process: `-v`, `--quiet`, else `STREAMFLOW_LOG_LEVEL`; `STREAMFLOW_LOG_FORMAT` (json, text) or the terminal."""
    named = os.environ.get("STREAMFLOW_LOG_LEVEL", "info").lower()
    level = "debug" if verbose else "error" if quiet else named if named in LEVELS else "info"
    form = os.environ.get("STREAMFLOW_LOG_FORMAT", "")
    return Setup(level, form == "json" if form else not sys.stderr.isatty())


def setup(chosen: Setup) -> None:
    """Send this process's log lines to stderr as `chosen` says; replaces what was set up before."""
    global _current
    _current = chosen
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(_json_handler() if chosen.json else _console_handler())
    root.setLevel(chosen.level.upper())
    for noisy in ("asyncio", "nats", "grpc", "uvicorn", "watchfiles", "urllib3"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def current() -> Setup:
    return _current


def rename(name: str) -> None:
    """Name this process in its log lines, e.g. "encoder/rep-0"."""
    global _process_name
    _process_name = name


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, process, logger, message, error, and every `extra=` field."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": _process_name,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        line |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        return json.dumps(line, default=str)


class _NamedFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{_process_name}: {super().format(record)}"


def _json_handler() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    return handler


def _console_handler() -> logging.Handler:
    from rich.console import Console  # 30 ms, and only a terminal needs it
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False, markup=False, log_time_format="%H:%M:%S")
    handler.setFormatter(_NamedFormatter("%(message)s"))
    return handler
