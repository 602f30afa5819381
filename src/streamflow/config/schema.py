"""JSON Schema of the YAML files, for completion and checks in editors (`streamflow export schema`)."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from .models import DeploymentFile, ExecutorFile, FlowFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """One schema for flow, deployment and executor files: `jtype` tells which; any other class name is an executor."""
    refs, schema = models_json_schema(
        [(FlowFile, "validation"), (DeploymentFile, "validation"), (ExecutorFile, "validation")], ref_template="#/$defs/{model}"
    )
    flow, deployment, executor = (refs[model, "validation"] for model in (FlowFile, DeploymentFile, ExecutorFile))
    is_flow: dict[str, Any] = {"properties": {"jtype": {"enum": ["Flow", "AsyncFlow"]}}, "required": ["jtype"]}
    is_deployment: dict[str, Any] = {"properties": {"jtype": {"const": "Deployment"}}, "required": ["jtype"]}
    choice = {"if": is_flow, "then": flow, "else": {"if": is_deployment, "then": deployment, "else": executor}}
    return {"$schema": DIALECT, "title": "streamflow", "type": "object", **choice, "$defs": schema["$defs"]}
