"""`streamflow doctor flow.yml`: what somebody who comes from Jina must change in a flow, deployment or executor file and in its sources.

Nothing is run and nothing is imported: YAML is read by our own loader, Python by `ast`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from streamflow.broker.errors import FlowError
from streamflow.broker.yaml_tree import KeyPath, Tree, read
from streamflow.broker.yaml_variables import resolve
from streamflow.config.check import without_effect
from streamflow.config.load import jtype_of, load_deployment, load_executor_file, load_flow
from streamflow.config.models import DeploymentFile, ExecutorFile, FlowFile

from .advice import GATEWAYS, SCHEME, SCHEMES, VARIABLE
from .changes import Change, changes_of
from .sources import examine_sources

_MODELS: dict[str, type[BaseModel]] = {"Flow": FlowFile, "AsyncFlow": FlowFile, "Deployment": DeploymentFile}
_LOADERS: dict[type[BaseModel], Callable[[Path], object]] = {
    FlowFile: load_flow,
    DeploymentFile: load_deployment,
    ExecutorFile: load_executor_file,
}
_YAML = (".yml", ".yaml", ".jaml")
_CONFIG = "config.yml"


def examine(path: Path) -> list[Change]:
    """All changes in the file and in what it names, by file and line. Raises `FlowError` when it cannot be read at all."""
    found: dict[Change, None] = {}
    sources: dict[Path, None] = {}
    if path.suffix == ".py":
        sources[path.resolve()] = None
    else:
        _examine_yaml(path, found, sources)
    found |= dict.fromkeys(examine_sources(sources, _shown))
    return sorted(found)


def _shown(file: Path) -> str:
    """As the user would name it: from the current folder where it is below it."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


def _examine_yaml(path: Path, found: dict[Change, None], sources: dict[Path, None]) -> None:
    tree = read(path)
    model = _MODELS.get(jtype_of(tree), ExecutorFile)
    found |= dict.fromkeys(_problems(tree, model))
    for place, effect in without_effect(model, tree.value):
        found[_change(tree, place, f"`{place[-1]}`: {effect}; it may go", is_note=True)] = None
    for place, key, value, around in _entries(tree.value):
        for rule in _RULES:
            found |= dict.fromkeys(_change(tree, place, text, is_note=note) for text, note in rule(place, key, value, around))
    for file in _named_files(tree):
        if file.suffix == ".py":
            sources[file] = None
        elif file != tree.file:
            _examine_yaml(Path(_shown(file)), found, sources)


def _change(tree: Tree, place: KeyPath, text: str, *, is_note: bool = False) -> Change:
    file, _, line = tree.line_of(*place).rpartition(":")
    return Change(file, int(line), text, is_note)


def _problems(tree: Tree, model: type[BaseModel]) -> Iterator[Change]:
    """What keeps the file from loading."""
    assert tree.file is not None
    try:
        resolve(read(tree.source))
    except FlowError as error:  # of a variable that is set where the flow runs, perhaps
        yield from (
            Change(each.file, each.line, f"{each.text}; set it to have the rest checked", True) for each in changes_of(error, tree.source)
        )
        return
    try:
        with _quiet():
            _LOADERS[model](Path(tree.source))
    except FlowError as error:
        yield from changes_of(error, tree.source)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log's warnings, which are findings here."""
    log = logging.getLogger("streamflow.config")
    before, log.disabled = log.level, False
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


Rule = Callable[[KeyPath, str, Any, Mapping[Any, Any]], Iterator[tuple[str, bool]]]  # texts, and whether each is a note


def _uses_rule(place: KeyPath, key: str, value: Any, around: Mapping[Any, Any]) -> Iterator[tuple[str, bool]]:
    if key == "uses" and isinstance(value, str) and (scheme := SCHEME.match(value)):
        yield f"`{value}`: {SCHEMES[scheme[1]]}", scheme[1] == "docker"  # what is in the image cannot be seen from here


def _gateway_rule(place: KeyPath, key: str, value: Any, around: Mapping[Any, Any]) -> Iterator[tuple[str, bool]]:
    name = str(value).rpartition(".")[2]
    if key in ("uses", "jtype") and isinstance(value, str) and name in GATEWAYS:
        yield f"`{key}: {value}`: write `protocol: {GATEWAYS[name]}` in `gateway:`", False


def _jtype_rule(place: KeyPath, key: str, value: Any, around: Mapping[Any, Any]) -> Iterator[tuple[str, bool]]:
    if key in ("uses", "jtype") and isinstance(value, str) and value.startswith("jina."):
        yield f"`{key}: {value}`: write a class of your own, or leave it out for one that passes everything through", False


def _timeout_rule(place: KeyPath, key: str, value: Any, around: Mapping[Any, Any]) -> Iterator[tuple[str, bool]]:
    if key == "timeout_send" and isinstance(value, int | float) and value > 0:
        yield f"`timeout_send: {value}` is the time of the whole request here, not of one hop; write the sum of all hops", True


def _retries_rule(place: KeyPath, key: str, value: Any, around: Mapping[Any, Any]) -> Iterator[tuple[str, bool]]:
    if key == "retries" and "retry_on" not in around and value not in (-1, 0):
        yield "`retries` counts only for the exceptions that `retry_on` names; a request whose worker dies is always tried again", True


def _env_rule(place: KeyPath, key: str, value: Any, around: Mapping[Any, Any]) -> Iterator[tuple[str, bool]]:
    if len(place) > 1 and place[-2] == "env" and VARIABLE.fullmatch(key):
        yield f"`{key}`: write `{key.replace('JINA', 'STREAMFLOW', 1)}` (`streamflow -vf` lists them)", False


def _address_rule(place: KeyPath, key: str, value: Any, around: Mapping[Any, Any]) -> Iterator[tuple[str, bool]]:
    if len(place) == 3 and place[0] == "executors" and key in ("host", "port", "protocol") and not around.get("external"):
        yield f"`{key}` of an executor that runs here has no effect: workers listen nowhere; it may go, or belongs to `gateway:`", True


_RULES: tuple[Rule, ...] = (_uses_rule, _gateway_rule, _jtype_rule, _timeout_rule, _retries_rule, _env_rule, _address_rule)


def _entries(value: Any, place: KeyPath = ()) -> Iterator[tuple[KeyPath, str, Any, Mapping[Any, Any]]]:
    """Every key of every mapping in `value`: where, the key, its value, and the mapping around it."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from _entries(each, (*place, index))
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield (*place, key), str(key), each, value
            yield from _entries(each, (*place, key))


def _named_files(tree: Tree) -> Iterator[Path]:
    """Executor files and Python files that exist and that `tree` names, absolute."""
    assert tree.file is not None
    for _, key, value, around in _entries(tree.value):
        folders = [tree.file.parent, *(tree.file.parent / each for each in _texts(around.get("extra_search_paths")))]
        if key in ("uses", "jtype") and isinstance(value, str) and "\n" not in value:
            yield from _file_of(value, folders)
        elif key == "py_modules":
            for name in _texts(value):
                yield from _file_of(name, folders)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [each for each in value or () if isinstance(each, str)]


def _file_of(name: str, folders: Sequence[Path]) -> Iterator[Path]:
    """The file that `name` means: a path, a folder with a config.yml, or the module of a dotted class name."""
    dotted_name = name.replace(".", "/")
    forms = [name, f"{name}/{_CONFIG}", f"{dotted_name}.py", f"{dotted_name}/__init__.py"]
    forms += [f"{parent}.py" for parent in (dotted_name.rpartition("/")[0],) if parent]
    for folder in folders:
        for form in forms:
            place = (folder / form).resolve()
            if place.is_file() and place.suffix in (*_YAML, ".py"):
                yield place
                return
