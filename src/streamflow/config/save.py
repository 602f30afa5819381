"""A `Definition` as YAML that `load_config` reads back."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from streamflow.broker.errors import FlowError
from streamflow.broker.yaml_tree import scalar

from .build import YAML_SUFFIXES, as_mapping
from .definition import Definition
from .models import Arguments, ExecutorFile, Given

_ONE_OR_LIST = frozenset({"protocol", "port", "host", "needs", "py_modules"})


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    # Quoted also where YAML 1.2 would read a number and PyYAML, speaking 1.1, would not.
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="'" if scalar(value) is not value else None)


_Dumper.add_representer(str, _text)


def flow_yaml(definition: Definition, folder: Path) -> str:
    """The text of a flow file to be put in `folder`. Raises `FlowError` for arguments that are no plain values."""
    return dump_yaml(
        {"jtype": "Flow", "version": "1"}
        | _sections(definition, definition.shared, folder)
        | {"executors": [_section({"name": each["name"], **each}, definition, folder) for each in definition.executors]}
    )


def deployment_yaml(definition: Definition, folder: Path) -> str:
    """The text of a deployment file to be put in `folder`. Raises `FlowError` for arguments that are no plain values."""
    dropped = ("needs",) if "name" in definition.shared else ("needs", "name")
    executor = {name: value for name, value in definition.executors[0].items() if name not in dropped}
    return dump_yaml({"jtype": "Deployment", "version": "1"} | _sections(definition, definition.shared | executor, folder))


def _sections(definition: Definition, arguments: Given, folder: Path) -> Given:
    parts = {"with": arguments, "gateway": definition.gateway}
    return {key: _section(given, definition, folder) for key, given in parts.items() if given}


def dump_yaml(data: Given) -> str:
    """`data` as text that reads back as it was. Raises `FlowError` for what is no plain value."""
    try:
        return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    except yaml.YAMLError as error:
        raise FlowError(f"cannot be written as YAML: {error.args[0]}: {error.args[-1]!r}") from None


def _section(given: Given, definition: Definition, folder: Path) -> Given:
    """Arguments as YAML holds them: classes by name, lists of one without the list, files that are found from `folder`."""
    section = {key: _plain(value) for key, value in given.items()}
    if isinstance(given.get("uses"), type):
        section |= _of_class(given["uses"], section.get("py_modules", []))
    if definition.folder != folder:
        keep_files(section, definition.folder)
    return section | {key: section[key][0] for key in section if key in _ONE_OR_LIST and len(section[key]) == 1}


def _plain(value: Any) -> Any:
    """`value` with models and tuples turned into mappings and lists."""
    if isinstance(value, ExecutorFile):
        return as_mapping(value)
    if isinstance(value, Arguments):
        return value.given()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _of_class(kind: type, py_modules: list[str]) -> Given:
    """`uses` (and `py_modules`) by which a class is found again."""
    if "<locals>" in kind.__qualname__:
        raise FlowError(f"uses: {kind.__qualname__} is defined within a function; move it to the top of its module to write it as YAML")
    if kind.__module__ != "__main__":
        return {"uses": f"{kind.__module__}.{kind.__qualname__}"}
    file = getattr(sys.modules["__main__"], "__file__", None) or inspect.getfile(kind)
    return {"uses": kind.__qualname__, "py_modules": [*py_modules, str(Path(file).resolve())]}


def keep_files(plain: Given, folder: Path) -> None:
    """Make files relative to the old folder absolute, since the new file lies elsewhere."""
    uses = plain.get("uses")
    if isinstance(uses, str) and uses.endswith(YAML_SUFFIXES) and (folder / uses).is_file():
        plain["uses"] = str((folder / uses).resolve())
    if "py_modules" in plain:
        plain["py_modules"] = [str((folder / each).resolve()) if (folder / each).is_file() else each for each in plain["py_modules"]]
