"""Flow and deployment files into a `Definition`: `Flow.load_config`, `Deployment.load_config`, and the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from streamflow.broker.errors import FlowError
from streamflow.broker.yaml_tree import Tree, from_data, parse, read
from streamflow.broker.yaml_variables import resolve

from .check import check_keywords, check_tree
from .definition import Definition
from .models import Arguments, DeploymentArguments, DeploymentFile, ExecutorFile, FlowArguments, FlowFile, Given, OneExecutor, Served
from .save import keep_files
from .spec import Origin

Source = str | Path | Mapping[str, Any] | IO[str]
DEPLOYMENT_NAME = "executor"
_URL = re.compile(r"[a-zA-Z][\w+.-]*://")


def read_source(source: Source, context: Mapping[str, Any] | None = None) -> Tree:
    """The tree of a path, inline YAML or JSON, an open text file, or a mapping, with its variables put in. Raises `FlowError`."""
    return resolve(_parse(source), context)


def load_flow(source: Source, *, context: Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None) -> Definition:
    """The flow in `source`; `overrides` are keywords of `Flow()` that win over its `with:`. Raises `FlowError` with file and line."""
    tree = read_source(source, context)
    _check_jtype(tree, ("Flow", "AsyncFlow"))
    file = check_tree(FlowFile, tree)
    shared = _merged(
        file.arguments, {"name": file.name, "broker": file.broker}, check_keywords(FlowArguments, overrides or {}, "Flow").given()
    )
    if "uses" in shared:
        raise tree.error("a flow file cannot start from another one", "with", "uses")
    definition = _definition(tree, shared)
    definition.origin = _origin("Flow", tree, source, context, overrides)
    definition.gateway = file.gateway.given() if file.gateway else {}
    definition.where = lambda index: tree.where("executors", index)
    for executor in file.executors or []:
        definition.append(executor.given())
    definition.graph()
    return definition


def load_deployment(source: Source, *, context: Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None) -> Definition:
    """The deployment in `source`, as a flow of one executor. Raises `FlowError` with file and line."""
    tree = read_source(source, context)
    _check_jtype(tree, ("Deployment",))
    file = check_tree(DeploymentFile, tree)
    top = {name: value for name, value in file.given().items() if name in DeploymentArguments.model_fields}
    given = _merged(file.arguments, top, check_keywords(DeploymentArguments, overrides or {}, "Deployment").given())
    definition = deployment_of(given, _definition(tree, {}))
    definition.origin = _origin("Deployment", tree, source, context, overrides)
    definition.gateway |= file.gateway.given() if file.gateway else {}
    definition.where = lambda index: tree.where()
    definition.graph()
    return definition


def deployment_of(given: Given, definition: Definition) -> Definition:
    """`definition` filled with one executor and its gateway, from keywords of `Deployment()`.

    Of an external executor `host` and `port` tell where it is; of any other where the gateway listens.
    """
    of_executor, of_gateway = set(OneExecutor.model_fields), set(Served.model_fields)
    (of_gateway if given.get("external") else of_executor).difference_update({"host", "port"})
    definition.shared = {name: value for name, value in given.items() if name in of_gateway}
    definition.append({"name": DEPLOYMENT_NAME, **{name: value for name, value in given.items() if name in of_executor}})
    return definition


def executor_of(deployment: Definition) -> Given:
    """The arguments of a deployment's executor for a flow that takes it in; a name that nobody gave is left out."""
    given = {name: value for name, value in deployment.executors[0].items() if name != "needs"}
    if "name" not in deployment.shared:
        del given["name"]
    keep_files(given, deployment.folder)
    return {**given, "extra_search_paths": [*given.get("extra_search_paths", ()), str(deployment.folder)]}


def load_executor_file(source: Source, *, context: Mapping[str, Any] | None = None) -> ExecutorFile:
    """A checked `exec.yml`. Raises `FlowError` with file and line."""
    return check_tree(ExecutorFile, read_source(source, context))


def jtype_of(tree: Tree) -> str:
    """What a file is: its `jtype`, or by its keys; "" when it does not tell."""
    value = tree.value
    if not isinstance(value, Mapping):
        raise tree.error(f"expected a mapping with `jtype`, got {type(value).__name__}")
    return str(value.get("jtype") or ("Flow" if "executors" in value or "gateway" in value else ""))


_WAYS = {
    "Flow": ("a Flow", "use Flow.load_config, or `streamflow flow`"),
    "AsyncFlow": ("a Flow", "use Flow.load_config, or `streamflow flow`"),
    "Deployment": ("a Deployment", "use Deployment.load_config, or `streamflow deployment`"),
}


def _check_jtype(tree: Tree, expected: tuple[str, ...]) -> None:
    jtype = jtype_of(tree) or expected[0]
    if jtype not in expected:
        kind, way = _WAYS.get(jtype, (f"of the executor or gateway class {jtype}", "give it as `uses`"))
        raise FlowError(f"{tree.line_of('jtype')}: this file is {kind}, not a {expected[0]}: {way}")


def _parse(source: Source) -> Tree:
    if isinstance(source, Mapping):
        return from_data(source)
    if isinstance(source, Path):
        return read(source)
    if not isinstance(source, str):
        return parse(source.read(), str(getattr(source, "name", "text stream")))
    is_inline = "\n" in source or source.lstrip().startswith(("{", "!", "jtype:"))
    if not is_inline and _URL.match(source):
        raise FlowError(f"{source}: definitions are not loaded from a URL: download the file and give its path")
    return parse(source) if is_inline else read(source)


def _definition(tree: Tree, shared: Given) -> Definition:
    if tree.file is None:
        return Definition(shared)
    return Definition(shared, folder=tree.file.parent, sources=(tree.file,))


def _origin(kind: str, tree: Tree, source: Source, context: Mapping[str, Any] | None, overrides: Mapping[str, Any] | None) -> Origin | None:
    """None for what is in no file that could be read again."""
    return Origin(kind, str(source), context, overrides or {}) if tree.file is not None and isinstance(source, str | Path) else None


def _merged(arguments: Arguments | None, *over: Given) -> Given:
    """Arguments of `with:` under those of each of `over` that are set."""
    merged = arguments.given() if arguments else {}
    for each in over:
        merged |= {name: value for name, value in each.items() if value is not None}
    return merged
