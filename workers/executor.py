"""The class that users derive from.

Nothing here knows documents or the bus: an executor is a plain object, in a unit test as in a worker. `loader.py` makes one from `uses`,
`endpoints.py` reads what its methods want, `invoke.py` calls them.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Self
from weakref import WeakValueDictionary

from streamflow.broker.errors import FlowError

from .decorators import FALLBACK, Batching, dynamic_batching, marked_on, normalized, requests, suggest, write

__all__ = ["FALLBACK", "BaseExecutor", "Batching", "Executor", "dynamic_batching", "rebind", "registered", "requests", "write"]

CACHE = Path("~/.cache/streamflow")  # workspaces of executors that were given none
_SET_BY_INIT = frozenset({"metas", "bound", "requests", "runtime_args", "dynamic_batching", "logger", "_workspace_root"})


class Executor:
    """Base of all user classes: methods decorated with `@requests` are the endpoints of a service.

    A subclass with an `__init__` takes `**kwargs` and calls `super().__init__(**kwargs)`. Endpoints are inherited; a method of the same
    name overrides, and `@requests` on it replaces the bindings of the one it overrides.
    """

    bindings: ClassVar[Mapping[str, str]] = {}  # endpoint -> method name, as declared by this class and its bases

    metas: SimpleNamespace  # name, description, and whatever the YAML file adds
    runtime_args: SimpleNamespace  # name, replicas, replica_id, shards, shard_id, workspace, py_modules
    bound: dict[str, str]  # endpoint -> method name of this instance, `uses_requests` applied
    requests: dict[str, Callable[..., Any]]  # endpoint -> bound method
    dynamic_batching: dict[str, Mapping[str, Any]]  # endpoint or method name -> options that override the decorator's
    logger: logging.Logger
    tracer: Any = None  # this and `meter`: always None, for executors written for Jina that ask before they use them
    meter: Any = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.bindings = _declared(cls)
        _registry[cls.__name__] = cls

    def __init__(
        self,
        metas: Mapping[str, Any] | SimpleNamespace | None = None,
        requests: Mapping[str, str] | None = None,
        runtime_args: Mapping[str, Any] | SimpleNamespace | None = None,
        workspace: str | os.PathLike[str] | None = None,
        dynamic_batching: Mapping[str, Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.metas = _namespace(metas, name=type(self).__name__, description="")
        self.runtime_args = _namespace(
            runtime_args, name=self.metas.name, replicas=1, replica_id=0, shards=1, shard_id=-1, workspace=None, py_modules=[]
        )
        self._workspace_root = workspace or self.runtime_args.workspace or getattr(self.metas, "workspace", None) or CACHE
        self.logger = logging.getLogger(f"streamflow.executor.{self.runtime_args.name}")
        self.bound = rebind(type(self), requests or {})
        self.requests = {endpoint: getattr(self, method) for endpoint, method in self.bound.items()}
        self.dynamic_batching = dict(dynamic_batching or {})
        if kwargs:
            self.logger.warning("%s: nobody takes the constructor arguments %s", type(self).__name__, ", ".join(sorted(kwargs)))

    @property
    def workspace(self) -> str:
        """A directory of this instance alone, created on first use: `<given>/<name>[/<shard>][/rep-<n>]`, the last but for replica 0."""
        args = self.runtime_args
        parts = [_path_part(str(args.name).partition("/")[0])]
        if args.shard_id is not None and int(args.shard_id) >= 0:
            parts.append(str(args.shard_id))
        if int(args.replica_id) > 0:
            parts.append(f"rep-{args.replica_id}")
        path = Path(self._workspace_root).expanduser().joinpath(*parts).absolute()
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    def warmup(self) -> None:
        """Called once before the first request, after `__init__`; may be `async def`. The replica is ready when it returns."""

    def close(self) -> None:
        """Called once when the executor ends, whatever the reason; may be `async def`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @classmethod
    def load_config(cls, source: Any, **options: Any) -> Executor:
        """The executor that a YAML file, inline YAML, JSON or mapping describes; `options` as in `loader.load_executor`."""
        from .loader import load_executor  # lazy: the loader knows this class, and a plain object in a test needs no YAML

        return load_executor(source, **options)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            hint = f": {type(self).__name__}.__init__ must call super().__init__(**kwargs) first" if name in _SET_BY_INIT else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=self)


_registry: WeakValueDictionary[str, type[Executor]] = WeakValueDictionary()


def registered() -> dict[str, type[Executor]]:
    """Every executor class alive in this process, by class name (the newest of a name)."""
    return dict(_registry)


def rebind(cls: type[Executor], overrides: Mapping[str, str]) -> dict[str, str]:
    """Endpoint -> method name after `uses_requests`: a method named there loses the endpoints it was declared with."""
    for endpoint, method in overrides.items():
        if not isinstance(method, str) or not callable(getattr(cls, method, None)):
            raise FlowError(f"uses_requests: {endpoint!r}: {cls.__name__} has no method {method!r}{suggest(method, _methods(cls))}")
    kept = {endpoint: method for endpoint, method in cls.bindings.items() if method not in overrides.values()}
    return kept | {normalized(endpoint): method for endpoint, method in overrides.items()}


def _declared(cls: type) -> dict[str, str]:
    result: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        redefined = vars(owner).keys() & set(result.values())
        lost = {name for name in redefined if marked_on(owner, name) or not callable(getattr(owner, name))}
        result = {endpoint: method for endpoint, method in result.items() if method not in lost}
        result.update(_declared_by(owner))
    return result


def _declared_by(owner: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in vars(owner):
        for endpoint in marked_on(owner, name):
            if endpoint in found:
                raise FlowError(f"{owner.__name__}: endpoint {endpoint!r} is bound to both {found[endpoint]!r} and {name!r}")
            found[endpoint] = name
    return found


def _methods(cls: type) -> list[str]:
    return [name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name, None))]


def _namespace(values: Mapping[str, Any] | SimpleNamespace | None, **defaults: Any) -> SimpleNamespace:
    given = vars(values) if isinstance(values, SimpleNamespace) else dict(values or {})
    return SimpleNamespace(**(defaults | {key: value for key, value in given.items() if value not in (None, "")}))


def _path_part(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name).strip(".") or "_"


class BaseExecutor(Executor):
    """The executor of a node that was given none: no endpoints, every request passes through unchanged."""
