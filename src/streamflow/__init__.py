"""Serving and batch processing of ML pipelines on a durable queue.

The public names. Each is imported when it is first used, so that `import streamflow` costs milliseconds and loads no docarray, gRPC or web
framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import _docarray
from ._version import __version__

if TYPE_CHECKING:
    from .broker.errors import (
        Cancelled,
        Code,
        DeadlineExceeded,
        ExecutorError,
        FlowError,
        InvalidInput,
        NotFound,
        Overloaded,
        PermissionDenied,
        Quarantined,
        RuntimeFailToStart,
        Status,
        StreamflowError,
        TooLarge,
        Unauthenticated,
        Unavailable,
    )
    from .client import Client
    from .deployment import Deployment
    from .flow import Flow
    from .gateways.base import Gateway
    from .workers.executor import Executor, dynamic_batching, requests, write

__all__ = [
    # writing executors
    "Executor",
    "requests",
    "dynamic_batching",
    "write",
    # running and calling them
    "Flow",
    "Deployment",
    "Client",
    "Gateway",
    # errors
    "StreamflowError",
    "InvalidInput",
    "FlowError",
    "NotFound",
    "Unauthenticated",
    "PermissionDenied",
    "DeadlineExceeded",
    "Cancelled",
    "Overloaded",
    "TooLarge",
    "Unavailable",
    "Quarantined",
    "ExecutorError",
    "RuntimeFailToStart",
    "Status",
    "Code",
    # about
    "__version__",
]

_HOMES = {
    "Executor": "workers.executor",
    "requests": "workers.executor",
    "dynamic_batching": "workers.executor",
    "write": "workers.executor",
    "Flow": "flow",
    "Deployment": "deployment",
    "Client": "client",
    "Gateway": "gateways.base",
}
_HOMES |= {name: "broker.errors" for name in __all__ if name not in _HOMES and not name.startswith("_")}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_docarray.install()
