"""`Flow`: several executors behind one gateway, put together in Python or from YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from streamflow.broker.errors import FlowError
from streamflow.broker.flow import Graph

from .config.check import check_keywords
from .config.definition import Definition
from .config.load import Source, executor_of, load_flow
from .config.models import ExecutorArguments, FlowArguments
from .config.save import flow_yaml
from .crud import Crud
from .deployment import Deployment
from .orchestration import Orchestration


class Flow(Orchestration, Crud[Any]):
    """A pipeline: `Flow(port=8080, protocol="http").add(uses=Encoder).add(uses=Indexer)`.

    Arguments are those of Jina's `Flow`: of the gateway (host, port, protocol, prefetch, cors ...), and what is handed down to every
    executor (env, workspace, timeout_ready, replicas ...). `broker` is the URL of a NATS server, or `{"url": ..., "store": ...}`; an own
    one is started when it is missing. `uses` names a flow file to start from. Raises `FlowError` for unknown or wrong arguments.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        host: str | None = None,
        port: int | list[int] | None = None,
        protocol: str | list[str] | None = None,
        uses: str | None = None,
        **arguments: Any,
    ) -> None:
        keywords = {"name": name, "host": host, "port": port, "protocol": protocol, **arguments}
        if uses is not None:
            super().__init__(load_flow(uses, overrides=_set(keywords)))
        else:
            super().__init__(Definition(check_keywords(FlowArguments, _set(keywords), "Flow").given()))

    def add(
        self,
        deployment: Deployment | None = None,
        /,
        *,
        uses: str | type | Mapping[str, Any] | None = None,
        name: str | None = None,
        needs: str | list[str] | tuple[str, ...] | None = None,
        **arguments: Any,
    ) -> Self:
        """Add an executor, or that of a `deployment` with `arguments` over its own, and return the flow.

        Without `needs` it follows the last executor that does not float; `needs="gateway"` starts a branch. `arguments` are those of Jina's
        `add`: replicas, shards, polling, when, floating, external, host, port, uses_with, uses_metas, uses_requests, uses_dynamic_batching,
        py_modules, env, workspace, timeout_ready, no_reduce ...; besides retries, retry_on, max_deliver and allow_partial.
        Raises `FlowError` for unknown or wrong arguments, and for an executor that does not fit in; it is not added then.
        """
        keywords = _set({"uses": uses, "name": name, "needs": needs, **arguments})
        who = f"executors[{len(self._definition.executors)}]" + (f" {name!r}" if name else "")
        if not isinstance(deployment, Deployment | None):
            raise FlowError(f"{who}: add() takes a Deployment, or keywords: add(uses=...)")
        checked = check_keywords(ExecutorArguments, keywords, who).given()
        if deployment is not None:
            checked = executor_of(deployment.definition) | checked
        before = [dict(each) for each in self._definition.executors]
        self._definition.origin = None
        self._definition.append(checked)
        try:
            self._definition.graph()
        except FlowError:
            self._definition.executors[:] = before
            raise
        return self

    def needs(self, needs: str | Iterable[str], name: str | None = None, **arguments: Any) -> Self:
        """Add an executor that joins `needs`; without `uses` it only joins."""
        return self.add(
            name=name or self._definition.free_name("joiner"), needs=[needs] if isinstance(needs, str) else list(needs), **arguments
        )

    def needs_all(self, name: str | None = None, **arguments: Any) -> Self:
        """Add an executor that joins all open ends; without `uses` it only joins."""
        return self.needs(self._definition.open_ends() or ["gateway"], name, **arguments)

    @classmethod
    def load_config(cls, source: Source, *, context: Mapping[str, Any] | None = None, **overrides: Any) -> Self:
        """The flow of a path, inline YAML, an open file or a dict; `context` for `${{ CONTEXT.name }}`, `overrides` win over its `with:`.

        Raises `FlowError` with file and line.
        """
        flow = cls.__new__(cls)
        Orchestration.__init__(flow, load_flow(source, context=context, overrides=overrides))
        return flow

    @property
    def graph(self) -> Graph:
        """The executors and their edges. Raises `FlowError`."""
        return self._definition.graph()

    def __len__(self) -> int:
        """Executors, without the gateway."""
        return len(self._definition.executors)

    def __bool__(self) -> bool:
        return True

    def is_flow_ready(self) -> bool:
        """Whether gateway and all executors are ready now."""
        return self._is_ready()

    def _yaml(self, folder: Path) -> str:
        return flow_yaml(self._definition, folder)


def _set(keywords: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keywords.items() if value is not None}
