"""What must change in Python files, read as text (`ast`): nothing of them runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import streamflow
from streamflow.config.check import REFUSED

from .advice import DOCKERFILE, MODULES, NAMES, OLD_DOCARRAY, OLD_MEMBERS, REQUIREMENTS, SCHEME, SCHEMES, VARIABLE
from .changes import Change

MAX_FILES = 500


def examine_sources(files: Iterable[Path], shown: Callable[[Path], str]) -> Iterator[Change]:
    """What must change in `files`, in those of their folders that they import, and in the requirements and Dockerfiles beside them."""
    known = dict.fromkeys(files)
    for number, file in enumerate(queue := list(known)):
        if number >= MAX_FILES:
            break
        try:
            module = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError) as error:
            yield Change(shown(file), getattr(error, "lineno", None) or 1, f"cannot be read: {error}")
            continue
        yield from _Rules(shown(file)).run(module)
        fresh = [each for each in _imported(module, file.parent) if each not in known]
        known |= dict.fromkeys(fresh)
        queue += fresh
    for folder in dict.fromkeys(file.parent for file in known):
        yield from _beside(folder / "requirements.txt", REQUIREMENTS, shown)
        yield from _beside(folder / "Dockerfile", DOCKERFILE, shown)


def _beside(file: Path, rules: dict[re.Pattern[str], str], shown: Callable[[Path], str]) -> Iterator[Change]:
    lines = file.read_text("utf-8", "replace").splitlines() if file.is_file() else []
    for number, line in enumerate(lines, 1):
        for pattern, advice in rules.items():
            if pattern.match(line.strip()):
                yield Change(shown(file), number, f"`{line.strip()}`: {advice}")


def _imported(module: ast.Module, folder: Path) -> Iterator[Path]:
    """Files of `folder` and below that `module` imports, by relative names or by plain ones."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from _files((name.name for name in node.names), folder)
        elif isinstance(node, ast.ImportFrom) and node.level <= 1:
            names = [node.module] if node.module else [name.name for name in node.names]
            yield from _files(names, folder)


def _files(names: Iterable[str], folder: Path) -> Iterator[Path]:
    for name in names:
        place = folder.joinpath(*name.split("."))
        yield from (each for each in (place.with_suffix(".py"), place / "__init__.py") if each.is_file())


class _Rules(ast.NodeVisitor):
    """Collects the changes of one file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: list[Change] = []
        self._is_old = False  # the file uses documents of docarray before 0.30

    def run(self, module: ast.Module) -> list[Change]:
        self.visit(module)
        return self._found

    def _say(self, node: ast.AST, text: str) -> None:
        self._found.append(Change(self._file, getattr(node, "lineno", 1), text))

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            if name.name.partition(".")[0] == "jina":
                self._say(node, f"`import {name.name}`: {_module_advice(name.name) or 'write `import streamflow`'}")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        package = (node.module or "").partition(".")[0] if not node.level else ""
        for name in node.names:
            if package == "jina":
                self._is_old |= name.name in OLD_DOCARRAY
                self._say(node, f"`from {node.module} import {name.name}`: {_name_advice(str(node.module), name.name)}")
            elif node.module == "docarray" and not node.level and name.name in OLD_DOCARRAY:
                self._is_old = True
                self._say(node, f"`from docarray import {name.name}`: {NAMES.get(name.name, NAMES['Document'])}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if self._is_old and isinstance(node.value, ast.Name) and node.attr in OLD_MEMBERS:
            self._say(node, f"`{node.value.id}.{node.attr}` of a DocumentArray: write {OLD_MEMBERS[node.attr]}")
        if node.attr == "from_hub":
            self._say(node, f"`from_hub`: {SCHEMES['jinaai']}")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            if keyword.arg in REFUSED:
                self._say(keyword.value, f"`{keyword.arg}`: {REFUSED[keyword.arg]}")
            elif keyword.arg == "uses" and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str):
                self._scheme(keyword.value, keyword.value.value)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and VARIABLE.fullmatch(node.value):
            self._say(node, f"`{node.value}`: write `{node.value.replace('JINA', 'STREAMFLOW', 1)}` (`streamflow -vf` lists them)")

    def _scheme(self, node: ast.AST, text: str) -> None:
        if (found := SCHEME.match(text)) and found[1] != "docker":
            self._say(node, f"`{text}`: {SCHEMES[found[1]]}")


def _name_advice(module: str, name: str) -> str:
    if name in streamflow.__all__:
        return f"write `from streamflow import {name}`"
    return NAMES.get(name) or _module_advice(module) or "there is no counterpart: see docs/coming-from-jina.md"


def _module_advice(module: str) -> str | None:
    return next((advice for name, advice in MODULES.items() if module == name or module.startswith(f"{name}.")), None)
