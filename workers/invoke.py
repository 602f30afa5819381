"""Calls an endpoint: arguments in, documents out, user exceptions turned into `ExecutorError`.

`Invoker.call` and `stream` run a sync endpoint where they are called (the worker's thread); `acall` and `astream` run any, on the loop.
Nothing here is shared between calls, so calls may run at the same time as far as the executor allows.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from time import time
from typing import Any, NamedTuple

from docarray import BaseDoc, DocList
from pydantic import BaseModel, ValidationError

from streamflow.broker.announce import EndpointInfo
from streamflow.broker.errors import InvalidInput

from .arrays import converter
from .decorators import FALLBACK
from .endpoints import EndpointSpec, bind_endpoints
from .executor import Executor
from .failures import EndpointError, failed
from .returns import CallResult, list_of, of_all, of_each, yielded
from .watchdog import Watchdog, unwatched

__all__ = ["NO_EXTRAS", "CallResult", "Context", "EndpointError", "Extras", "Invoker"]

_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})


@dataclass(frozen=True, slots=True)
class Context:
    """About the request, for endpoints that declare `context`: what makes effects idempotent."""

    request_id: str = ""
    attempt: int = 1  # 1 = first delivery; a retry (`retry_on`) and a redelivery count alike
    deadline: float = 0.0  # Unix seconds, 0.0 = none
    fencing_token: int = 0  # grows with every delivery of the request: refuse writes that carry a smaller one
    endpoint: str = ""  # as the client asked for it, which a fallback cannot know otherwise

    def remaining_s(self) -> float | None:
        """Seconds until the deadline (negative when it has passed), None when there is none."""
        return self.deadline - time() if self.deadline else None


class Extras(NamedTuple):
    """What an endpoint may ask for beside documents and parameters."""

    docs_matrix: list[DocList[Any]] | None = None
    docs_map: dict[str, DocList[Any]] | None = None
    tracing_context: Any = None
    context: Context = Context()


NO_EXTRAS = Extras()
NO_PARAMETERS: Mapping[str, Any] = {}


class Invoker:
    """The endpoints of one executor, ready to call. Raises `FlowError` for endpoints that cannot work."""

    def __init__(
        self,
        executor: Executor,
        *,
        exit_on_exceptions: Iterable[str] = (),
        retry_on: Iterable[str] = (),
        output_array_type: str | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.executor = executor
        self.name = type(executor).__name__
        self.endpoints = bind_endpoints(executor)
        self._fallback = self.endpoints.get(FALLBACK)
        self._exit_on = frozenset(exit_on_exceptions)
        self._retry_on = frozenset(retry_on)
        self._convert = converter(output_array_type) if output_array_type else None
        self._watched = watchdog.watch if watchdog is not None else unwatched

    def resolve(self, endpoint: str) -> EndpointSpec | None:
        """What serves `endpoint`: its own binding, else the fallback, else None: the request passes through unchanged."""
        return self.endpoints.get(endpoint, self._fallback)

    def describe(self) -> tuple[EndpointInfo, ...]:
        """The endpoints as they are announced."""
        return tuple(spec.describe() for spec in self.endpoints.values())

    def call(self, spec: EndpointSpec, docs: Any, parameters: Mapping[str, Any] = NO_PARAMETERS, extras: Extras = NO_EXTRAS) -> CallResult:
        """Run a sync endpoint on a `DocList`. A streaming one gives all it yields, for all documents.

        Raises `EndpointError` for what the executor raised or wrongly returned, `InvalidInput` naming the field of wrong `parameters`.
        """
        if spec.is_generator:
            items = [item for doc in docs for item in self.stream(spec, doc, parameters, extras)]
            return CallResult(list_of(spec.response_type, items))
        if spec.single:
            values = [self._run(spec, {**self._arguments(spec, parameters, extras), "doc": doc}) for doc in docs]
            return self._finished(of_each(spec, docs, values))
        arguments = self._arguments(spec, parameters, extras)
        if spec.documents:
            arguments["docs"] = docs
        return self._finished(of_all(spec, docs, self._run(spec, arguments)))

    async def acall(
        self, spec: EndpointSpec, docs: Any, parameters: Mapping[str, Any] = NO_PARAMETERS, extras: Extras = NO_EXTRAS
    ) -> CallResult:
        """`call` for async endpoints. A sync one runs too, and blocks the event loop meanwhile."""
        if not spec.is_async:
            return self.call(spec, docs, parameters, extras)
        if spec.is_generator:
            items = [item for doc in docs async for item in self.astream(spec, doc, parameters, extras)]
            return CallResult(list_of(spec.response_type, items))
        if spec.single:
            values = [await self._arun(spec, {**self._arguments(spec, parameters, extras), "doc": doc}) for doc in docs]
            return self._finished(of_each(spec, docs, values))
        arguments = self._arguments(spec, parameters, extras)
        if spec.documents:
            arguments["docs"] = docs
        return self._finished(of_all(spec, docs, await self._arun(spec, arguments)))

    def stream(
        self, spec: EndpointSpec, doc: BaseDoc, parameters: Mapping[str, Any] = NO_PARAMETERS, extras: Extras = NO_EXTRAS
    ) -> Generator[BaseDoc, None, None]:
        """The documents that a sync generator endpoint yields for one document. Closing the iterator closes the endpoint's."""
        with closing(self._run(spec, self._stream_arguments(spec, doc, parameters, extras))) as items:
            while True:
                try:
                    with self._watched(spec.name):
                        item = next(items)
                except StopIteration:
                    return
                except BaseException as error:  # KeyboardInterrupt and panics of extension modules too: they are this request's answer
                    raise self._failed(error) from error
                yielded(spec, item)
                if self._convert:
                    self._convert([item])
                yield item

    async def astream(
        self, spec: EndpointSpec, doc: BaseDoc, parameters: Mapping[str, Any] = NO_PARAMETERS, extras: Extras = NO_EXTRAS
    ) -> AsyncGenerator[BaseDoc, None]:
        """`stream` for async generator endpoints. A sync one runs too, and blocks the event loop between its documents."""
        if not spec.is_async:
            for item in self.stream(spec, doc, parameters, extras):
                yield item
            return
        async with aclosing(self._run(spec, self._stream_arguments(spec, doc, parameters, extras))) as items:
            while True:
                try:
                    with self._watched(spec.name):
                        item = await anext(items)
                except StopAsyncIteration:
                    return
                except BaseException as error:
                    if _is_ours(error):
                        raise
                    raise self._failed(error) from error
                yielded(spec, item)
                if self._convert:
                    self._convert([item])
                yield item

    def _run(self, spec: EndpointSpec, arguments: dict[str, Any]) -> Any:
        try:
            with self._watched(spec.name):
                return spec.fn(**arguments)
        except BaseException as error:  # KeyboardInterrupt and panics of extension modules too: they are this request's answer
            raise self._failed(error) from error

    async def _arun(self, spec: EndpointSpec, arguments: dict[str, Any]) -> Any:
        try:
            with self._watched(spec.name):
                value = spec.fn(**arguments)
                return await value if inspect.isawaitable(value) else value
        except BaseException as error:
            if _is_ours(error):
                raise
            raise self._failed(error) from error

    def _finished(self, result: CallResult) -> CallResult:
        if self._convert:
            self._convert(result.docs)
        return result

    def _failed(self, error: BaseException) -> EndpointError:
        return failed(error, self.name, self._exit_on, self._retry_on)

    def _arguments(self, spec: EndpointSpec, parameters: Mapping[str, Any], extras: Extras) -> dict[str, Any]:
        arguments = {name: getattr(extras, name) for name in spec.extras}
        if spec.parameters_model is not None:
            arguments["parameters"] = self._validated(spec, spec.parameters_model, parameters)
        elif spec.takes_parameters:
            arguments["parameters"] = _copy(parameters)
        return arguments

    def _validated(self, spec: EndpointSpec, model: type[BaseModel], parameters: Mapping[str, Any]) -> BaseModel:
        try:
            return model.model_validate(_copy(parameters))
        except ValidationError as error:
            raise InvalidInput(f"{self.name} {spec.name}: {_wrong_fields(error)}") from error
        except Exception as error:  # a validator of the user's model
            raise self._failed(error) from error

    def _stream_arguments(self, spec: EndpointSpec, doc: BaseDoc, parameters: Mapping[str, Any], extras: Extras) -> dict[str, Any]:
        arguments = self._arguments(spec, parameters, extras)
        if spec.documents:
            arguments[spec.documents] = doc if spec.single else list_of(spec.request_type, [doc])
        return arguments


def _is_ours(error: BaseException) -> bool:
    """A cancellation that somebody asked of this task, not one that user code made."""
    task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
    return task is not None and task.cancelling() > 0


def _copy(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that user code may change, at any depth."""
    return {key: value if type(value) in _ATOMS else _deep(value) for key, value in parameters.items()} if parameters else {}


def _deep(value: Any) -> Any:
    if isinstance(value, dict):
        return _copy(value)
    return [_deep(item) for item in value] if isinstance(value, list) else value


def _wrong_fields(error: ValidationError) -> str:
    wrong = error.errors(include_url=False, include_input=False, include_context=False)
    shown = [f"{'.'.join(map(str, ('parameters', *one['loc'])))}: {one['msg']}" for one in wrong[:5]]
    return "; ".join(shown) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
