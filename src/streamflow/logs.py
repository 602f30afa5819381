"""Log lines of every process: a rich console in a terminal, one JSON object a line otherwise, or what a logging file says."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import log_files

LEVELS = ("debug", "info", "warning", "error")
OPTIONS = ("log_config", "log_level", "quiet", "quiet_error", "suppress_root_logging")  # of flows, gateways and executors
_OURS = "streamflow"
_NOISY = ("asyncio", "nats", "grpc", "uvicorn", "watchfiles", "urllib3")
_COLORS = {"DEBUG": 2, "WARNING": 33, "ERROR": 31, "CRITICAL": 31}  # SGR codes
_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_process_name = "streamflow"


@dataclass(frozen=True, slots=True)
class Setup:
    """How to log. `json` False = for people. `file` is a checked logging file, which then decides about form and handlers.

    `quiet_error`: exceptions without their tracebacks. `only_ours`: nothing of other libraries.
    """

    level: str = "info"
    json: bool = False
    file: Mapping[str, Any] | None = None
    quiet_error: bool = False
    only_ours: bool = False


_current = Setup()


def choose(*, verbose: bool = False, quiet: bool = False, options: Mapping[str, Any] | None = None) -> Setup:
    """The setup of this process: `-v`, `--quiet`, what a flow's `options` say, else `STREAMFLOW_LOG_LEVEL` and `STREAMFLOW_LOG_CONFIG` (or
    with JINA_ in front); `STREAMFLOW_LOG_FORMAT` (json, text) or the terminal. Raises `FlowError` for a logging file that is wrong."""
    level = _variable("LOG_LEVEL").lower()
    form = os.environ.get("STREAMFLOW_LOG_FORMAT", "")
    setup = Setup(level if level in LEVELS else "info", form == "json" if form else not sys.stderr.isatty())
    setup = adapted(setup, {"log_config": _variable("LOG_CONFIG"), **(options or {})})
    return replace(setup, level="debug" if verbose else "error" if quiet else setup.level)


def _variable(name: str) -> str:
    return os.environ.get(f"STREAMFLOW_{name}") or os.environ.get(f"JINA_{name}") or ""


def adapted(setup: Setup, options: Mapping[str, Any]) -> Setup:
    """`setup` with the `OPTIONS` of a flow or executor put over it. Raises `FlowError` for a logging file that is wrong."""
    config = options.get("log_config")
    if config == log_files.DEFAULT:
        setup = replace(setup, file=None)
    elif config:
        file = log_files.check(config)
        setup = replace(setup, file=file, level=str(file["level"]).lower())
    level = "error" if options.get("quiet") else str(options.get("log_level") or setup.level).lower()
    return replace(
        setup,
        level=level,
        quiet_error=bool(options.get("quiet_error", setup.quiet_error)),
        only_ours=bool(options.get("suppress_root_logging", setup.only_ours)),
    )


def setup(chosen: Setup) -> None:
    """Send this process's log lines where `chosen` says; replaces what was set up before."""
    global _current
    _current = chosen
    root, ours = logging.getLogger(), logging.getLogger(_OURS)
    for logger in (root, ours):
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
    for handler in _handlers(chosen):
        if chosen.quiet_error:
            handler.addFilter(_without_traceback)
        (ours if chosen.only_ours else root).addHandler(handler)
    if chosen.only_ours:
        root.addHandler(logging.NullHandler())
    ours.propagate = not chosen.only_ours
    root.setLevel(chosen.level.upper())
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def _handlers(chosen: Setup) -> list[logging.Handler]:
    if chosen.file is not None:
        return log_files.handlers_of(chosen.file, _process_name, _FORMATTERS)
    return [_json_handler() if chosen.json else _console_handler()]


def current() -> Setup:
    return _current


def rename(name: str, options: Mapping[str, Any] | None = None) -> None:
    """Name this process in its log lines, e.g. "encoder/rep-0", and have it log as its own `OPTIONS` say."""
    global _process_name
    _process_name = name
    if options or _current.file is not None:
        setup(adapted(_current, options or {}))


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


class _ColorFormatter(logging.Formatter):
    """Colours by level, unless `NO_COLOR` (https://no-color.org) or Jina's own variable asks for none."""

    def format(self, record: logging.LogRecord) -> str:
        text, color = super().format(record), _COLORS.get(record.levelname)
        if color is None or os.environ.get("NO_COLOR") or _variable("LOG_NO_COLOR"):
            return text
        return f"\x1b[{color}m{text}\x1b[0m"


_FORMATTERS: dict[str, type[logging.Formatter]] = {
    "PlainFormatter": logging.Formatter,
    "ColorFormatter": _ColorFormatter,
    "JsonFormatter": JsonFormatter,
}


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True


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
