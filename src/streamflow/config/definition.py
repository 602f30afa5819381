"""A flow while it is being put together: checked arguments in order, with names, `needs` and what the flow hands down filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from streamflow.broker.errors import FlowError
from streamflow.broker.flow import GATEWAY, Graph, Journal

from .build import build_spec, node_of
from .gateway_file import unfolded
from .models import ExecutorDefaults, GatewayDefaults, Given
from .spec import ExecutorSpec, FlowSpec, Origin

DEFAULT_NAME = "default"
_NAMED = re.compile(r"executors? '([^']+)'")


@dataclass(slots=True)
class Definition:
    """`shared`: arguments of the flow itself; `gateway`: those of its gateway; `executors`: one per executor, in order."""

    shared: Given = field(default_factory=dict)
    gateway: Given = field(default_factory=dict)
    executors: list[Given] = field(default_factory=list)
    folder: Path = field(default_factory=Path.cwd)
    sources: tuple[Path, ...] = ()
    origin: Origin | None = None  # while the file says all, and what was set since can be set again
    where: Callable[[int], str] | None = None  # "flow.yml:12" of an executor, for errors

    @property
    def name(self) -> str:
        return str(self.shared.get("name") or DEFAULT_NAME)

    def append(self, given: Given) -> None:
        """Add an executor: default name, default `needs`, and no floating executor before one that is not (Jina's rules)."""
        given = dict(given)
        given["name"] = given.get("name") or self.free_name("executor", len(self.executors))
        given["needs"] = list(dict.fromkeys(given.get("needs") or [self.last]))
        if not given.get("floating"):
            self._unfloat(given["needs"])
        self.executors.append(given)

    @property
    def last(self) -> str:
        """What an executor without `needs` comes after: the last one that does not float."""
        return next((str(each["name"]) for each in reversed(self.executors) if not each.get("floating")), GATEWAY)

    def open_ends(self) -> list[str]:
        """Executors, not floating, that none but floating ones need yet."""
        needed = {need for each in self.executors if not each.get("floating") for need in each["needs"]}
        return [each["name"] for each in self.executors if not each.get("floating") and each["name"] not in needed]

    def free_name(self, base: str, number: int | None = None) -> str:
        """`base` with the first free number from `number` on; None = `base` alone if it is free."""
        taken = {each["name"] for each in self.executors}
        if number is None:
            if base not in taken:
                return base
            number = 1
        while f"{base}{number}" in taken:
            number += 1
        return f"{base}{number}"

    def _unfloat(self, names: list[str]) -> None:
        for each in self.executors:
            if each["name"] in names and each.get("floating"):
                each["floating"] = False
                self._unfloat(each["needs"])

    def complete(self, given: Given) -> Given:
        """An executor's arguments with what the flow hands down."""
        return _under(self.shared, ExecutorDefaults.model_fields, given)

    def complete_gateway(self) -> Given:
        """The gateway's arguments with what its own file says and what the flow hands down. Raises `FlowError`."""
        return _under(self.shared, GatewayDefaults.model_fields, unfolded(self.gateway, self.folder))

    def graph(self) -> Graph:
        """The checked graph. Raises `FlowError`, with file and line where they are known."""
        try:
            nodes = tuple(node_of(self.complete(each)) for each in self.executors)
            journal = self.shared.get("journal")
            graph = Graph(self.name, nodes, Journal(**journal.given()) if journal else None, self.shared.get("keep_results", 0.0))
            graph.validate()
        except FlowError as error:
            raise self._located(error) from None
        return graph

    def spec(self, ports: list[int]) -> FlowSpec:
        """The finished flow; `ports` one per protocol."""
        graph = self.graph()
        try:
            spec = build_spec(graph, [self.complete(each) for each in self.executors], self.complete_gateway(), self, ports)
        except FlowError as error:
            raise self._located(error) from None
        return spec if self.where is None else replace(spec, executors=tuple(map(self._placed, spec.executors)))

    def _placed(self, executor: ExecutorSpec) -> ExecutorSpec:
        index = next(index for index, each in enumerate(self.executors) if each["name"] == executor.name)
        return executor if self.where is None else replace(executor, where=self.where(index))

    def _located(self, error: FlowError) -> FlowError:
        found = _NAMED.search(str(error))
        names = [each["name"] for each in self.executors]
        if self.where is None or found is None or found[1] not in names:
            return error
        index = len(names) - 1 - names[::-1].index(found[1])  # of two with one name the second is wrong
        return FlowError(f"{self.where(index)}: {error}")


def _under(shared: Given, names: Mapping[str, Any], own: Given) -> Given:
    """`own` over those of `shared` that are among `names`; environments are merged."""
    handed = {name: value for name, value in shared.items() if name in names}
    env = {**handed.get("env", {}), **own.get("env", {})}
    return {**handed, **own, **({"env": env} if env else {})}
