"""A `FlowSpec` made ready for the supervisor, which never imports a line of the user's.

`seal` runs where the flow was written; it puts what may need the user's code (classes, constructor arguments) into bytes that only the
process which runs it opens.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamflow.broker.errors import StreamflowError
from streamflow.config.spec import ExecutorSpec, FlowSpec, GatewaySpec, Origin

from . import logs
from .pickling import dumps
from .reload import Sources, sources_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A flow that can be unpickled without the user's code: `classes` holds the rest, by executor name ("" = the gateway)."""

    graph: Mapping[str, Any]
    executors: tuple[ExecutorSpec, ...]
    gateway: GatewaySpec
    classes: Mapping[str, bytes]
    broker_url: str | None
    store: Path | None
    origin: Origin | None = None
    sources: tuple[Sources, ...] = ()  # to be watched
    durability: str | None = None  # None = as the environment says
    takes_sockets: bool = True  # its gateway listens on sockets that it inherits


def seal(spec: FlowSpec) -> Sealed:
    """`spec` ready for the supervisor's pipe.

    Raises `StreamflowError` naming the executor whose class or arguments cannot be pickled, `FlowError` for a wrong logging file.
    """
    for options in (spec.options, spec.gateway.options, *(each.options for each in spec.executors)):
        logs.adapted(logs.current(), options)
    parts: dict[str, ExecutorSpec | GatewaySpec] = {"": spec.gateway, **{each.name: each for each in spec.executors}}
    classes = {name: _seal_code(part) for name, part in parts.items() if not _plain([part.uses, part.uses_with])}
    gateway, *executors = (replace(part, uses=None, uses_with={}) if name in classes else part for name, part in parts.items())
    assert isinstance(gateway, GatewaySpec)
    only = tuple(replace(each, options=_plain_ones(each.options)) for each in executors if isinstance(each, ExecutorSpec))
    origin = spec.origin if spec.origin is not None and _plain([spec.origin.context, spec.origin.overrides, spec.origin.gateway]) else None
    sources = tuple(_sources(replace(spec, origin=origin)))
    takes = _takes_sockets(spec.gateway)
    return Sealed(spec.graph.to_dict(), only, gateway, classes, spec.broker_url, spec.store, origin, sources, spec.durability, takes)


def _takes_sockets(gateway: GatewaySpec) -> bool:
    """Whether `gateway` leaves listening to us. A class that is only named is not imported to find out."""
    if gateway.uses is None:
        return True
    base: Any = getattr(sys.modules.get("streamflow.gateways.fastapi"), "FastAPIBaseGateway", None)
    if base is None or not isinstance(gateway.uses, type) or not issubclass(gateway.uses, base):
        return False
    own = any(getattr(gateway.uses, name) is not getattr(base, name) for name in ("setup_server", "run_server"))
    return not own and all(each.protocol != "grpc" for each in gateway.listen)


def _sources(spec: FlowSpec) -> Iterator[Sources]:
    """What `reload` asks to watch: the flow file, and the files of executors."""
    if spec.reload and spec.origin is not None:
        yield Sources("", tuple(map(str, spec.sources)))
    elif spec.reload and spec.sources:
        log.warning("reload: the flow was changed after %s was read, so changes of that file are not followed", spec.sources[0])
    for executor in spec.executors:
        if not executor.options.get("reload"):
            continue
        sources = sources_of(executor)
        if sources.configs or sources.folders:
            yield sources
        else:
            log.warning("executor %r: reload: its class comes from no file that could be read again", executor.name)


def _plain(value: object) -> bool:
    """Whether `value` is text, numbers, and lists and mappings of them."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _plain_ones(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if _plain(value)}


def _seal_code(part: ExecutorSpec | GatewaySpec) -> bytes:
    who = f"executor {part.name!r}" if isinstance(part, ExecutorSpec) else "gateway"
    roots = [each for each in (part.uses, *part.uses_with.values()) if isinstance(each, type)]
    try:
        return dumps({"uses": part.uses, "uses_with": dict(part.uses_with)}, *roots)
    except Exception as error:  # user objects may raise anything
        raise StreamflowError(f"{who}: its class or arguments cannot be sent to its process: {error}") from error
