"""`@requests`, `@dynamic_batching`, `@write`: they note what they were given on the method and hand the same function back.

Signatures, pickling and the order of decorators stay as they are. `executor.py` collects the notes per class, `endpoints.py` uses them.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import FrameType
from typing import Any, TypeVar, overload

from streamflow.broker.errors import FlowError

FALLBACK = "/default"  # what a bare `@requests` binds: every endpoint that nothing else is bound to
_MARKS = "__streamflow_marks__"
_READ = frozenset({"docs", "doc", "parameters", "return"})  # annotations that are ever evaluated

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Batching:
    """When the documents waiting for an endpoint are handed over in one call."""

    preferred_batch_size: int = 4  # documents, or units of `custom_metric`
    timeout_s: float = 10.0  # the oldest request waits at most this long
    flush_all: bool = False  # hand over all that waits, not at most the preferred size
    custom_metric: Callable[[Any], float] | None = None  # DocList of one document -> its size, instead of 1
    use_custom_metric: bool = False
    greedy: bool = True  # an idle executor takes what is there; False: wait for a full batch or the timeout

    def updated(self, options: Mapping[str, Any], where: str) -> Batching:
        """A copy with Jina's option names applied (`timeout` in milliseconds). Raises `FlowError` starting with `where`."""
        values = dict(options)
        unknown = values.keys() - {"preferred_batch_size", "timeout", "flush_all", "custom_metric", "use_custom_metric", "greedy"}
        if unknown:
            raise FlowError(f"{where}: unknown batching option {min(unknown, key=str)!r}")
        if "timeout" in values:
            values["timeout_s"] = _number(values.pop("timeout"), f"{where}: timeout") / 1000
        result = replace(self, **values)
        result.check(where)
        return result

    def check(self, where: str) -> None:
        size = self.preferred_batch_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise FlowError(f"{where}: preferred_batch_size must be a whole number of at least 1, not {size!r}")
        if self.use_custom_metric and not callable(self.custom_metric):
            raise FlowError(f"{where}: use_custom_metric needs custom_metric, a function from documents to a number")


@dataclass(frozen=True, slots=True)
class Marks:
    """What the decorators noted on one method."""

    on: tuple[str, ...] | None = None  # None = not decorated with @requests
    request_schema: Any = None
    response_schema: Any = None
    batching: Batching | None = None
    write: bool = False
    names: Mapping[str, Any] = field(default_factory=dict)  # what the words in string annotations mean


@overload
def requests(method: F, /) -> F: ...
@overload
def requests(*, on: str | Iterable[str] | None = None, request_schema: Any = None, response_schema: Any = None) -> Callable[[F], F]: ...
def requests(
    method: Any = None,
    /,
    *,
    on: str | Iterable[str] | None = None,
    request_schema: Any = None,
    response_schema: Any = None,
) -> Any:
    """Bind a method to endpoint(s) `on`; without `on`, to every endpoint that nothing else is bound to.

    The schemas, a `BaseDoc` or `DocList[...]`, win over the annotations. Works on `def`, `async def` and generators, in any order with the
    other decorators.
    """
    changes = {"on": _endpoints(on), "request_schema": request_schema, "response_schema": response_schema}
    bind = partial(_mark, decorator="requests", frame=sys._getframe(1), **changes)
    return bind if method is None else bind(method)


@overload
def dynamic_batching(method: F, /) -> F: ...
@overload
def dynamic_batching(
    *,
    preferred_batch_size: int = 4,
    timeout: float = 10_000,
    flush_all: bool = False,
    custom_metric: Callable[[Any], float] | None = None,
    use_custom_metric: bool = False,
    greedy: bool = True,
) -> Callable[[F], F]: ...
def dynamic_batching(
    method: Any = None,
    /,
    *,
    preferred_batch_size: int = 4,
    timeout: float = 10_000,
    flush_all: bool = False,
    custom_metric: Callable[[Any], float] | None = None,
    use_custom_metric: bool = False,
    greedy: bool = True,
) -> Any:
    """Let requests with equal parameters share calls of up to `preferred_batch_size` documents.

    An idle executor takes what is there at once, and what comes while it works makes the next batch. `greedy=False` makes it wait until a
    batch is full, or its oldest request is `timeout` ms old. `flush_all` hands over all that waits. `custom_metric` (DocList of one
    document -> number, with `use_custom_metric`) counts something else than documents. An endpoint gives one document for each it got, or
    changes them in place; when a call fails, parts of its batch are run again to find out whose documents did it.
    """
    where = "@dynamic_batching"
    batching = Batching(
        preferred_batch_size, _number(timeout, f"{where}: timeout") / 1000, flush_all, custom_metric, use_custom_metric, greedy
    )
    batching.check(where)
    bind = partial(_mark, decorator="dynamic_batching", frame=None, batching=batching)
    return bind if method is None else bind(method)


def write(method: F, /) -> F:
    """Mark an endpoint that changes the executor's state: every replica applies its requests, in one order."""
    return _mark(method, decorator="write", frame=None, write=True)


def marks_of(cls: type, method: str) -> Marks:
    """What decorators noted on `method`; an undecorated override keeps what its base noted."""
    for owner in cls.__mro__:
        marks = getattr(vars(owner).get(method), _MARKS, None)
        if isinstance(marks, Marks):
            return marks
    return Marks()


def marked_on(owner: type, name: str) -> tuple[str, ...]:
    """The endpoints that `@requests` on `name` itself, not on what it overrides, binds."""
    marks = getattr(vars(owner)[name], _MARKS, None)
    return (marks.on or ()) if isinstance(marks, Marks) else ()


def normalized(endpoint: object) -> str:
    """`endpoint` with its leading slash."""
    if not isinstance(endpoint, str) or not endpoint.strip("/ ") and endpoint != "/":
        raise FlowError(f"an endpoint is text like '/index', not {endpoint!r}")
    return endpoint if endpoint.startswith("/") else f"/{endpoint}"


def suggest(name: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when something known is close, else nothing."""
    close = difflib.get_close_matches(str(name), sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _endpoints(on: str | Iterable[str] | None) -> tuple[str, ...]:
    if on is None:
        return (FALLBACK,)
    return tuple(normalized(endpoint) for endpoint in ([on] if isinstance(on, str) else on))


def _mark(method: F, /, *, decorator: str, frame: FrameType | None, **changes: Any) -> F:
    """Note `changes` on the function itself: signatures, pickling and the order of decorators stay as they are."""
    if not callable(method) or isinstance(method, type):
        raise FlowError(f"@{decorator} belongs on a method; endpoints are given as @requests(on='/index'), got {method!r}")
    marks = getattr(method, _MARKS, None) or Marks()
    if frame is not None:
        changes["names"] = _names_in_annotations(method, frame)
    setattr(method, _MARKS, replace(marks, **changes))
    return method


def _names_in_annotations(method: Callable[..., Any], class_body: FrameType) -> dict[str, Any]:
    """What the words in string annotations mean where the class is written.

    Nobody knows the names of an enclosing function later, and cloudpickle leaves behind the globals that only text mentions.
    """
    annotations = getattr(method, "__annotations__", {})
    texts = [text for name, text in annotations.items() if name in _READ and isinstance(text, str)]
    known = {**class_body.f_globals, **(class_body.f_back.f_locals if class_body.f_back else {})} if texts else {}
    return {word: known[word] for text in texts for word in re.findall(r"[^\W\d]\w*", text) if word in known}


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise FlowError(f"{where} must be a number of milliseconds of at least 0, not {value!r}")
    return float(value)
