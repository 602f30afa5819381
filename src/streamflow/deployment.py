"""`Deployment`: one executor behind a gateway; a `Flow` of one, with a shorter constructor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from .config.check import check_keywords
from .config.definition import Definition
from .config.load import Source, deployment_of, load_deployment
from .config.models import DeploymentArguments
from .config.save import deployment_yaml
from .crud import Crud
from .orchestration import Orchestration


class Deployment(Orchestration, Crud[Any]):
    """One executor, served: `Deployment(uses=Encoder, replicas=2, protocol="http", port=8080)`.

    Takes the arguments of an executor (see `Flow.add`) and of the gateway (see `Flow`). With `external=True` nothing is started for the
    executor, and `host` and `port` tell where it is. Raises `FlowError` for unknown or wrong arguments.
    """

    def __init__(
        self,
        *,
        uses: str | type | Mapping[str, Any] | None = None,
        name: str | None = None,
        replicas: int | None = None,
        host: str | list[str] | None = None,
        port: int | list[int] | None = None,
        protocol: str | list[str] | None = None,
        **arguments: Any,
    ) -> None:
        keywords = {"uses": uses, "name": name, "replicas": replicas, "host": host, "port": port, "protocol": protocol, **arguments}
        given = {key: value for key, value in keywords.items() if value is not None}
        definition = deployment_of(check_keywords(DeploymentArguments, given, "Deployment").given(), Definition())
        definition.graph()
        super().__init__(definition)

    @classmethod
    def load_config(cls, source: Source, *, context: Mapping[str, Any] | None = None, **overrides: Any) -> Self:
        """The deployment of a path, inline YAML, an open file or a dict; `overrides` are keywords of `Deployment()` that win.

        Raises `FlowError` with file and line.
        """
        deployment = cls.__new__(cls)
        Orchestration.__init__(deployment, load_deployment(source, context=context, overrides=overrides))
        return deployment

    def is_deployment_ready(self) -> bool:
        """Whether gateway and executor are ready now."""
        return self._is_ready()

    def _yaml(self, folder: Path) -> str:
        return deployment_yaml(self._definition, folder)
