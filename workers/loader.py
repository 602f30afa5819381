"""`uses` to an executor object: class, `'module.Class'`, class name, YAML file or folder, inline YAML or JSON, mapping, or nothing."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from streamflow.broker.errors import FlowError, RuntimeFailToStart
from streamflow.broker.yaml_tree import Tree, from_data, parse, read
from streamflow.broker.yaml_variables import resolve

from .decorators import suggest
from .executor import BaseExecutor, Executor, registered
from .imports import find_file, import_all, import_named

CONFIG = "config.yml"  # what a folder is searched for
_SUFFIXES = (".yml", ".yaml", ".jaml", ".json")
_KEYS = frozenset({"jtype", "with", "metas", "requests", "py_modules", "workspace", "uses_dynamic_batching", "dynamic_batching", "version"})
NO_TREE = Tree(None, "uses")
_SCHEMES = {
    "docker": "run the image as its own service: its command is `streamflow worker`, and the flow node is external",
    "jinahub": "the hub is gone: copy the executor's source and give its config.yml",
    "jinaai": "the hub is gone: copy the executor's source and give its config.yml",
    "http": "code is not loaded from a URL: download it and give its config.yml",
}


@dataclass(frozen=True, slots=True)
class Definition:
    """An executor as its file (or whatever `uses` was) describes it."""

    kind: type | str = ""  # class, or its name (dotted or not); "" = BaseExecutor
    arguments: dict[str, Any] = field(default_factory=dict)  # of `with`
    metas: dict[str, Any] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    batching: dict[str, Any] = field(default_factory=dict)
    py_modules: tuple[str, ...] = ()
    workspace: str | None = None
    folders: tuple[Path, ...] = ()  # where its files are looked for, in order
    tree: Tree = field(default_factory=lambda: NO_TREE)  # for errors: file and line


def load_executor(
    uses: Any = None,
    *,
    uses_with: Mapping[str, Any] | None = None,
    uses_metas: Mapping[str, Any] | None = None,
    uses_requests: Mapping[str, str] | None = None,
    uses_dynamic_batching: Mapping[str, Any] | None = None,
    py_modules: str | Sequence[str] = (),
    runtime_args: Mapping[str, Any] | SimpleNamespace | None = None,
    workspace: str | PathLike[str] | None = None,
    base_dir: str | PathLike[str] | None = None,
    extra_search_paths: Sequence[str | PathLike[str]] = (),
    context: Mapping[str, Any] | None = None,
) -> Executor:
    """The executor that `uses` names, constructed. The `uses_*` arguments win over what its file says, key by key.

    Relative paths of a YAML file are looked for beside it, then in `base_dir` (default: the current folder) and `extra_search_paths`.
    `${{ ENV.X }}` in YAML is of this process, `${{ CONTEXT.x }}` of `context`.
    Raises `FlowError` for a definition that cannot work, `RuntimeFailToStart` when importing or constructing raised.
    """
    folders = tuple(Path(folder).expanduser().resolve() for folder in (base_dir or Path.cwd(), *extra_search_paths))
    found = define(uses, folders, context)
    definition = replace(
        found,
        arguments=found.arguments | dict(uses_with or {}),
        metas=found.metas | dict(uses_metas or {}),
        requests=found.requests | dict(uses_requests or {}),
        batching=found.batching | dict(uses_dynamic_batching or {}),
        py_modules=(*found.py_modules, *_texts(py_modules)),
    )
    return _construct(find_class(definition), definition, runtime_args, workspace)


def define(uses: Any, folders: Sequence[Path], context: Mapping[str, Any] | None = None) -> Definition:
    """What `uses` says, nothing imported yet. Raises `FlowError`, with file and line where there is a file.

    A mapping is taken as it is: the flow file that it stood in has had its variables put in.
    """
    if isinstance(uses, type):  # first: the class may have a method `read`
        return Definition(uses, folders=tuple(folders))
    if hasattr(uses, "read"):
        uses = uses.read()
    if isinstance(uses, PathLike):
        uses = str(uses)
    if isinstance(uses, Mapping):
        return _from_tree(from_data(uses, "uses"), folders)
    if uses is None or isinstance(uses, str):
        return _from_text((uses or "").strip(), folders, context or {})
    raise FlowError(f"uses: {uses!r} is no class, text or mapping")


def find_class(definition: Definition) -> type[Executor]:
    """The class of `definition`, its `py_modules` imported. Raises `FlowError` when there is none or it is no `Executor`."""
    modules = import_all(definition.py_modules, definition.folders, definition.tree.where("py_modules"))
    kind = definition.kind
    found = kind if isinstance(kind, type) else _named(kind, modules, definition)
    if not isinstance(found, type):
        raise definition.tree.error(f"{kind!r} is no class", "jtype")
    if not issubclass(found, Executor):
        _require_executor_file(definition, found.__name__)
        raise definition.tree.error(f"class {found.__name__} does not derive from streamflow.Executor", "jtype")
    return found


def _from_text(uses: str, folders: Sequence[Path], context: Mapping[str, Any]) -> Definition:
    scheme = re.match(r"([a-z]+)[a-z+]*://", uses)
    if scheme:
        advice = _SCHEMES.get(scheme[1].removesuffix("s"), "not a form of `uses`")
        raise FlowError(f"uses: {uses}: {advice}")
    if "\n" in uses or uses.startswith(("{", "!")) or re.match(r"jtype\s*:", uses):
        return _from_tree(resolve(parse(uses), context), folders)
    path = find_file(uses, folders) if uses else None
    if path and path.is_dir() and (path / CONFIG).is_file():
        path = path / CONFIG
    if path and path.is_file() and path.suffix in _SUFFIXES:
        return _from_tree(resolve(read(path), context), (path.parent, *folders))
    if path and path.is_dir() and not uses.isidentifier():
        raise FlowError(f"uses: no {CONFIG} in {path}")
    if uses.endswith(_SUFFIXES) or "/" in uses or "\\" in uses:
        raise FlowError(f"uses: no file {uses!r} in {', '.join(dict.fromkeys(map(str, folders)))}")
    return Definition(uses, folders=tuple(folders))


def _from_tree(tree: Tree, folders: Sequence[Path]) -> Definition:
    value = tree.value
    if not isinstance(value, Mapping):
        raise tree.error("an executor is a mapping with `jtype`, not " + type(value).__name__)
    _check_keys(tree)
    metas = dict(_mapping(tree, "metas"))
    modules = (*_texts(metas.pop("py_modules", ()), tree, "metas"), *_texts(value.get("py_modules"), tree, "py_modules"))
    kind = value.get("jtype") or ""
    if not isinstance(kind, str | type):
        raise tree.error("must be a class name", "jtype")
    return Definition(
        kind=kind,
        arguments=dict(_mapping(tree, "with")),
        metas=metas,
        requests=dict(_mapping(tree, "requests")),
        batching={**_mapping(tree, "dynamic_batching"), **_mapping(tree, "uses_dynamic_batching")},
        py_modules=modules,
        workspace=value.get("workspace"),
        folders=tuple(folders),
        tree=tree,
    )


def _check_keys(tree: Tree) -> None:
    """A key that looks like a mistyped one is an error; others are left to newer versions and other tools."""
    for key in tree.value:
        if key not in _KEYS and (hint := suggest(key, _KEYS)):
            raise tree.error(f"unknown key{hint}", key)


def _mapping(tree: Tree, key: str) -> Mapping[str, Any]:
    value = tree.value.get(key) or {}
    if not isinstance(value, Mapping):
        raise tree.error(f"must be a mapping, not {type(value).__name__}", key)
    return value


def _texts(value: Any, tree: Tree = NO_TREE, key: str = "py_modules") -> tuple[str, ...]:
    items = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(item, str) for item in items):
        raise tree.error("must be a list of file or module names", key)
    return items


def _named(name: str, modules: Sequence[ModuleType], definition: Definition) -> Any:
    """The class called `name`: in `modules`, in the module that a dotted name begins with, among the classes defined so far."""
    if not name:
        return BaseExecutor
    module_name, _, class_name = name.rpartition(".")
    if module_name:
        modules = [import_named(module_name, definition.folders)]
    for module in modules:
        if isinstance(found := getattr(module, class_name, None), type):
            return found
    classes = registered()
    if not module_name and (found := classes.get(name) or getattr(sys.modules["__main__"], name, None)):
        return found
    _require_executor_file(definition, name)
    known = {key for module in modules for key, value in vars(module).items() if isinstance(value, type)} | classes.keys()
    hint = suggest(class_name, known) or ("" if modules else "; list its file under py_modules, or write 'module.Class'")
    places = f" in {', '.join(module.__name__ for module in modules)}" if modules else ""
    raise FlowError(f"{definition.tree.where('jtype')}: no executor class {class_name!r}{places}{hint}")


def _require_executor_file(definition: Definition, kind: str) -> None:
    if kind in ("Flow", "AsyncFlow", "Deployment"):
        what = "Deployment" if kind == "Deployment" else "Flow"
        text = f"this file is a {what}, not an executor: use {what}.load_config, or `streamflow {what.lower()}`"
        raise FlowError(f"{definition.tree.line_of('jtype')}: {text}")


def _construct(
    cls: type[Executor], definition: Definition, runtime_args: Mapping[str, Any] | SimpleNamespace | None, workspace: Any
) -> Executor:
    arguments = dict(definition.arguments)
    own_workspace = arguments.pop("workspace", None)
    ours: dict[str, Any] = {
        "metas": definition.metas,
        "requests": definition.requests,
        "runtime_args": _runtime_args(runtime_args, definition),
        "workspace": workspace or own_workspace or definition.workspace or definition.metas.get("workspace"),
        "dynamic_batching": definition.batching,
    }
    _check_arguments(cls, ours, arguments, definition)
    try:
        executor = cls(**ours, **arguments)
    except FlowError:
        raise
    except (Exception, SystemExit) as error:
        raise RuntimeFailToStart(f"executor {cls.__name__} did not start: {type(error).__name__}: {error}") from error
    if not hasattr(executor, "bound"):
        raise FlowError(f"{cls.__name__}.__init__ must call super().__init__(**kwargs)")
    return executor


def _runtime_args(given: Mapping[str, Any] | SimpleNamespace | None, definition: Definition) -> dict[str, Any]:
    values = dict(vars(given)) if isinstance(given, SimpleNamespace) else dict(given or {})
    return {"py_modules": list(definition.py_modules), **values}


def _check_arguments(cls: type, ours: Mapping[str, Any], arguments: Mapping[str, Any], definition: Definition) -> None:
    """Say before the call what Python would say less clearly after it."""
    where, name = definition.tree.where("with"), f"{cls.__name__}.__init__"
    reserved = arguments.keys() & ours.keys()
    if reserved:
        raise FlowError(f"{where}: {min(reserved)!r} is set by the worker and cannot be an argument of {name}")
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        raise FlowError(f"{name} must take **kwargs and call super().__init__(**kwargs)")
    try:
        signature.bind(None, **ours, **arguments)
    except TypeError as error:
        raise FlowError(f"{where}: {name}: {error} (arguments are given under `with`, or as uses_with)") from error
