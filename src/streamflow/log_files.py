"""Logging files in Jina's form (LG-02): which handlers, from which level, in which format.

    handlers: [StreamHandler, FileHandler]
    level: INFO
    configs:
      StreamHandler: {format: '%(asctime)s:{name:>15}@%(process)2d[%(levelname).1s]:%(message)s', formatter: PlainFormatter}
      FileHandler: {output: 'logs/{name}.log', formatter: JsonFormatter}

Handlers and formatters are those of the tables below: a file names no classes, so reading one runs no code.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from logging.handlers import RotatingFileHandler, SysLogHandler, TimedRotatingFileHandler
from pathlib import Path
from typing import Any

from streamflow.broker.errors import FlowError
from streamflow.broker.yaml_tree import Tree, read

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
DEFAULT = "default"
DEFAULT_FORMAT = "%(asctime)s:{name:>15}@%(process)2d[%(levelname).1s]:%(message)s"
Options = Mapping[str, Any]


def check(path: str | Path) -> Options:
    """What the file at `path` says, checked: `level`, `handlers`, `configs`. Raises `FlowError` with file and line."""
    tree = read(path)
    content = tree.value
    if not isinstance(content, Mapping):
        raise tree.error("a logging file is a mapping with `handlers`, `level` and `configs`")
    handlers = content.get("handlers")
    if not isinstance(handlers, list) or not handlers:
        raise tree.error("must be a list of handlers", "handlers")
    for index, name in enumerate(handlers):
        if name not in _HANDLERS:
            raise tree.error(f"{name!r} is no handler; there are {', '.join(_HANDLERS)}", "handlers", index)
    level = str(content.get("level", "INFO")).upper()
    if level not in LEVELS:
        raise tree.error(f"{level!r} is no level; there are {', '.join(LEVELS)}", "level")
    configs = {name: _config(tree, name) for name in handlers}
    return {"level": level, "handlers": handlers, "configs": configs}


def _config(tree: Tree, name: str) -> Options:
    config = (tree.value.get("configs") or {}).get(name) or {}
    known = {"format", "formatter", *_HANDLERS[name][1]}
    for key in config:
        if key not in known:
            raise tree.error(f"unknown key; {name} takes {', '.join(sorted(known))}", "configs", name, key)
    if config.get("formatter", "PlainFormatter") not in FORMATTERS:
        raise tree.error(f"there are {', '.join(FORMATTERS)}", "configs", name, "formatter")
    return dict(config)


def handlers_of(content: Options, name: str, formatters: Mapping[str, type[logging.Formatter]]) -> list[logging.Handler]:
    """The handlers of a checked file for the process called `name` ("encoder/rep-0"). Raises `FlowError` when one cannot be opened."""
    made = []
    for kind in content["handlers"]:
        config = content["configs"][kind]
        try:
            handler = _HANDLERS[kind][0](config, name)
        except OSError as error:
            raise FlowError(f"log_config: {kind} cannot be opened: {error}") from error
        if kind != "RichHandler" or "format" in config:
            text = str(config.get("format", DEFAULT_FORMAT)).replace("{name", "{0")  # `{name:>15}`: once, for this process
            handler.setFormatter(formatters[config.get("formatter", "PlainFormatter")](_filled(text, name)))
        made.append(handler)
    return made


def _filled(text: str, name: str) -> str:
    try:
        return text.format(name)
    except (LookupError, ValueError) as error:
        raise FlowError(f"log_config: format: {text!r}: {error}") from error


def _output(config: Options, name: str) -> str:
    """The file of a handler, in a folder that is made if need be; `{name}` keeps processes apart."""
    path = Path(str(config.get("output", "streamflow-{name}.log")).replace("{name}", name.replace("/", "-"))).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fspath(path)


def _rotating(config: Options, name: str) -> logging.Handler:
    return RotatingFileHandler(
        _output(config, name), maxBytes=int(config.get("max_bytes", 10 << 20)), backupCount=int(config.get("backup_count", 5))
    )


def _timed(config: Options, name: str) -> logging.Handler:
    when, count = str(config.get("when", "midnight")), int(config.get("backup_count", 7))
    return TimedRotatingFileHandler(_output(config, name), when=when, backupCount=count)


def _syslog(config: Options, name: str) -> logging.Handler:
    host = config.get("host")
    handler = SysLogHandler((str(host), int(config.get("port", 514))) if host else "/dev/log")
    handler.ident = f"{config.get('ident', '')}"
    return handler


def _rich(config: Options, name: str) -> logging.Handler:
    from rich.console import Console  # 30 ms, and only where a file asks for it
    from rich.logging import RichHandler

    return RichHandler(
        console=Console(stderr=True), **{"show_path": False, "markup": False, **{key: config[key] for key in config if key in _RICH}}
    )


_RICH = ("markup", "rich_tracebacks", "show_path", "show_time", "log_time_format")
_HANDLERS: dict[str, tuple[Callable[[Options, str], logging.Handler], tuple[str, ...]]] = {
    "StreamHandler": (lambda config, name: logging.StreamHandler(), ()),
    "FileHandler": (lambda config, name: logging.FileHandler(_output(config, name)), ("output",)),
    "RotatingFileHandler": (_rotating, ("output", "max_bytes", "backup_count")),
    "TimedRotatingFileHandler": (_timed, ("output", "when", "backup_count")),
    "SysLogHandler": (_syslog, ("host", "port", "ident")),
    "RichHandler": (_rich, _RICH),
}
FORMATTERS = ("PlainFormatter", "ColorFormatter", "JsonFormatter")
